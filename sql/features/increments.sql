-- What each version of an interaction adds to its day, and from when on it is known.
-- The first version of a key adds a row and its label; a correction adds the difference of the labels only; a
-- withdrawal (label -1) subtracts the row and the label.
-- A version known by the first midnight after its event is on time, and counts as known at that midnight. One known at
-- the event itself is the first of its key, because imports refuse earlier ones; only keys that have others are sorted.
CREATE OR REPLACE TEMP TABLE later_versions AS
WITH revised AS (
    SELECT user_id, item_id, domain_id, event_timestamp FROM versions WHERE known_at > event_timestamp
), ordered AS (
    SELECT versions.*, lag(label) OVER (
        PARTITION BY user_id, item_id, domain_id, event_timestamp ORDER BY known_at, label
    ) AS previous_label
    FROM versions SEMI JOIN revised USING (user_id, item_id, domain_id, event_timestamp)
)
SELECT * REPLACE (known_at::TIMESTAMP AS known_at) FROM ordered WHERE known_at > event_timestamp;
CREATE OR REPLACE TEMP VIEW all_increments AS
SELECT user_id, item_id, domain_id, day, (day + 1)::TIMESTAMP AS known, false AS late,
       (label >= 0)::BIGINT AS n, greatest(label, 0)::BIGINT AS clicks
FROM versions WHERE known_at = event_timestamp
UNION ALL
SELECT user_id, item_id, domain_id, day,
       greatest(known_at, (day + 1)::TIMESTAMP) AS known,
       known_at > (day + 1)::TIMESTAMP AS late,
       (label >= 0)::BIGINT - coalesce(previous_label >= 0, false)::BIGINT AS n,
       greatest(label, 0)::BIGINT - greatest(coalesce(previous_label, 0), 0)::BIGINT AS clicks
FROM later_versions
