-- The figures for the audit of a staged load, in one row. Parameters: files, domain, on.
WITH staged AS (
    SELECT * FROM read_parquet($files)
),
successive AS (
    SELECT
        position AS list_position,
        score,
        lag(position) OVER user_list AS position_before,
        lag(score) OVER user_list AS score_before
    FROM staged
    WINDOW user_list AS (PARTITION BY user_id ORDER BY position)
),
lists AS (
    SELECT
        count(*) FILTER (list_position <> coalesce(position_before, 0) + 1) AS misplaced,
        count(*) FILTER (score > score_before) AS rising
    FROM successive
),
keys AS (
    SELECT coalesce(sum(times - 1), 0)::BIGINT AS repeated
    FROM (SELECT count(*) AS times FROM staged GROUP BY user_id, item_id)
),
columns AS (
    SELECT
        count(*) AS rows,
        count(DISTINCT user_id) AS users,
        count(*) FILTER (
            user_id IS NULL OR item_id IS NULL OR domain_id IS NULL OR score_date IS NULL OR score IS NULL OR position IS NULL
        ) AS nulls,
        -- DuckDB sorts NaN above every number.
        count(*) FILTER (score < 0 OR score > 1) AS out_of_range,
        min(score) AS lowest,
        max(score) AS highest,
        max(position) AS deepest,
        count(*) FILTER (domain_id <> $domain OR score_date <> $on) AS foreign_rows
    FROM staged
)
SELECT columns.* RENAME (foreign_rows AS "foreign"), misplaced, rising, repeated FROM columns, lists, keys
