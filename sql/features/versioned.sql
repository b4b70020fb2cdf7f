-- Add to each increment the version of the item's profile (`item_version`) known by the end of its day, null if
-- there was none: among the versions valid and known before the next midnight, the latest valid one. Attributes that
-- become known later don't change rows of that day, so nothing leaks from the future and nothing needs restating.
CREATE OR REPLACE TEMP TABLE increments AS
WITH known_versions AS (
    SELECT days.item_id, day, item_version
    FROM (SELECT DISTINCT item_id, day, (day + 1)::TIMESTAMPTZ AS day_end FROM increments) AS days
    ASOF JOIN item_versions ON days.item_id = item_versions.item_id AND days.day_end > item_versions.available
)
SELECT increments.*, item_version FROM increments LEFT JOIN known_versions USING (item_id, day)
