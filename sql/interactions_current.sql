-- The interactions as known at $known_as_of: per key the latest version known by then, without keys that were withdrawn
-- (label -1).
-- $interactions: a glob of the store's files; $known_as_of: a timestamptz, far in the future for all versions.
SELECT
    user_id,
    item_id,
    domain_id,
    event_timestamp,
    max(known_at) AS known_at,
    arg_max(label, known_at) AS label
FROM read_parquet($interactions, hive_partitioning = false)
WHERE known_at <= $known_as_of
GROUP BY user_id, item_id, domain_id, event_timestamp
HAVING arg_max(label, known_at) >= 0
