-- What each version of an interaction adds to its day, and from when on it is known.
-- The first version of a key adds a row and its label; a correction adds the difference of the labels only; a
-- withdrawal (label -1) subtracts the row and the label.
-- A version known by the first midnight after its event is on time, and counts as known at that midnight.
-- Parameters: $interactions (glob), $through (date).
CREATE OR REPLACE TEMP TABLE increments AS
WITH versions AS (
    SELECT user_id, item_id, domain_id, event_timestamp::DATE AS day, known_at::TIMESTAMP AS known_at, label,
           lag(label) OVER (
               PARTITION BY user_id, item_id, domain_id, event_timestamp ORDER BY known_at, label
           ) AS previous_label
    FROM read_parquet($interactions, hive_partitioning = true, hive_types = {'day': DATE})
    WHERE day < $through
)
SELECT user_id, item_id, domain_id, day,
       greatest(known_at, (day + 1)::TIMESTAMP) AS known,
       known_at > (day + 1)::TIMESTAMP AS late,
       (label >= 0)::BIGINT - coalesce(previous_label >= 0, false)::BIGINT AS n,
       greatest(label, 0)::BIGINT - greatest(coalesce(previous_label, 0), 0)::BIGINT AS clicks
FROM versions
