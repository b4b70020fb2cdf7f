-- The stored versions of the interactions before a date. `day` is the partition, so later files aren't read.
-- Parameters: $interactions (glob), $through (date).
CREATE OR REPLACE TEMP TABLE versions AS
SELECT user_id, item_id, domain_id, event_timestamp, day, known_at, label
FROM read_parquet($interactions, hive_partitioning = true, hive_types = {'day': DATE})
WHERE day < $through
