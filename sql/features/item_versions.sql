-- Add to each increment the version of the item's profile (`item_version`) known by the end of its day, null if
-- there was none: among the versions valid and known before the next midnight, the latest valid one. Attributes that
-- become known later don't change rows of that day, so nothing leaks from the future and nothing needs restating.
-- {columns}: the attributes, quoted. Parameters: $items (files of the item profiles).
CREATE OR REPLACE TEMP TABLE item_versions AS
SELECT *, row_number() OVER () AS item_version FROM (
    SELECT item_id, {columns}, event_timestamp AS event,
           greatest(event_timestamp, created_timestamp) AS available
    FROM read_parquet($items, union_by_name = true)
    WINDOW versions AS (
        PARTITION BY item_id
        ORDER BY greatest(event_timestamp, created_timestamp), event_timestamp, created_timestamp
    )
    QUALIFY event_timestamp = max(event_timestamp) OVER (versions ROWS UNBOUNDED PRECEDING)
        AND available IS DISTINCT FROM lead(greatest(event_timestamp, created_timestamp)) OVER versions
);
CREATE OR REPLACE TEMP TABLE increments AS
WITH known_versions AS (
    SELECT days.item_id, day, item_version
    FROM (SELECT DISTINCT item_id, day, (day + 1)::TIMESTAMPTZ AS day_end FROM increments) AS days
    ASOF JOIN item_versions ON days.item_id = item_versions.item_id AND days.day_end > item_versions.available
)
SELECT increments.*, item_version FROM increments LEFT JOIN known_versions USING (item_id, day)
