-- Adds to each increment the item's profile version (`place`) that was known by the end of its day, null where
-- there was none: of those valid and known before the midnight after the day, the latest valid. What becomes
-- known of an item later changes no row of that day, so nothing leaks and nothing is restated.
-- {columns}: the attributes, quoted. Parameters: $items (files of the item profiles).
CREATE OR REPLACE TEMP TABLE item_versions AS
SELECT *, row_number() OVER () AS place FROM (
    SELECT item_id, {columns}, event_timestamp AS event,
           greatest(event_timestamp, created_timestamp) AS available
    FROM read_parquet($items, union_by_name = true)
    WINDOW line AS (
        PARTITION BY item_id
        ORDER BY greatest(event_timestamp, created_timestamp), event_timestamp, created_timestamp
    )
    QUALIFY event_timestamp = max(event_timestamp) OVER (line ROWS UNBOUNDED PRECEDING)
        AND available IS DISTINCT FROM lead(greatest(event_timestamp, created_timestamp)) OVER line
);
CREATE OR REPLACE TEMP TABLE increments AS
WITH met AS (
    SELECT days.item_id, day, place
    FROM (SELECT DISTINCT item_id, day, (day + 1)::TIMESTAMPTZ AS over FROM increments) AS days
    ASOF JOIN item_versions ON days.item_id = item_versions.item_id AND days.over > item_versions.available
)
SELECT increments.*, place FROM increments LEFT JOIN met USING (item_id, day)
