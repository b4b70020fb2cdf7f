-- A user's items with their rows and clicks per day, at each midnight where they change: the newest {most}, ordered by
-- the midnights from which they were known. What was known by a midnight is a prefix of the complete list, so each
-- series has one list, and each of its rows is a slice of that list.
CREATE OR REPLACE TEMP TABLE series AS
SELECT row_number() OVER () AS series, *
FROM (SELECT DISTINCT user_id, restated_at, lo FROM entries WHERE enter >= lo);
CREATE OR REPLACE TEMP TABLE counted AS
SELECT series, series.lo, enter AS t, joined, item_id, sum(n)::FLOAT AS n, sum(clicks)::FLOAT AS c
FROM entries JOIN series
    ON entries.user_id = series.user_id AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE met AS
SELECT series, list_transform(met, lambda x: x.item) AS items, list_transform(met, lambda x: x.n) AS rows,
       list_transform(met, lambda x: x.c) AS clicks
FROM (
    SELECT series, list({'joined': joined, 'item': item_id, 'n': n, 'c': c}).list_sort() AS met
    FROM counted WHERE item_id IS NOT NULL AND (n <> 0 OR c <> 0) GROUP BY ALL
);
CREATE OR REPLACE TEMP TABLE lengths AS
SELECT series, t, met FROM (
    SELECT series, lo, t, sum(met) OVER (PARTITION BY series ORDER BY t ROWS UNBOUNDED PRECEDING)::BIGINT AS met
    FROM (
        SELECT series, lo, t, count(*) FILTER (item_id IS NOT NULL AND (n <> 0 OR c <> 0)) AS met
        FROM counted GROUP BY ALL
    )
) WHERE t >= lo;
SELECT user_id, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp,
       coalesce(list_slice(items, first, last), []) AS items,
       coalesce(list_slice(rows, first, last), []) AS rows,
       coalesce(list_slice(clicks, first, last), []) AS clicks
FROM (SELECT series, t, greatest(met - {most}, 0) + 1 AS first, met AS last FROM lengths)
LEFT JOIN met USING (series) JOIN series USING (series)
