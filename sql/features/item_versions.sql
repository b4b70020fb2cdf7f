-- The versions of the items' profiles that can be the latest valid one at some moment, from when on each is known
-- (`available`). A version with the same attributes as the one before is left out.
-- {columns}: the attributes, quoted. Parameters: $items (files of the item profiles).
CREATE OR REPLACE TEMP TABLE item_versions AS
WITH effective AS (
    SELECT item_id, {columns}, greatest(event_timestamp, created_timestamp) AS available
    FROM read_parquet($items, union_by_name = true)
    WINDOW versions AS (
        PARTITION BY item_id
        ORDER BY greatest(event_timestamp, created_timestamp), event_timestamp, created_timestamp
    )
    QUALIFY event_timestamp = max(event_timestamp) OVER (versions ROWS UNBOUNDED PRECEDING)
        AND available IS DISTINCT FROM lead(greatest(event_timestamp, created_timestamp)) OVER versions
)
SELECT *, row_number() OVER () AS item_version FROM (
    SELECT * FROM effective WINDOW life AS (PARTITION BY item_id ORDER BY available)
    QUALIFY row_number() OVER life = 1 OR row({columns}) IS DISTINCT FROM lag(row({columns})) OVER life
)
