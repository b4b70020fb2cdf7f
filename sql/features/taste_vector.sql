-- The part of taste.sql for one vector. {a}: a unique name; {a}_values (item_version, vector): a table of lists of
-- integers; the result is null once every click is withdrawn.
CREATE OR REPLACE TEMP TABLE deltas AS
SELECT series, t, number, sum(c) AS clicks, sum(c * part::HUGEINT) AS part FROM (
    SELECT series, t, c, unnest(vector) AS part, generate_subscripts(vector, 1) AS number
    FROM counted JOIN {a}_values USING (item_version)
) GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE events AS
SELECT series, t, number, clicks, part, false AS is_output FROM deltas
UNION ALL
SELECT series, entity_totals.t, number, 0, 0, true
FROM entity_totals JOIN (SELECT series, number, min(t) AS met FROM deltas GROUP BY ALL) USING (series)
WHERE entity_totals.t >= met;
CREATE OR REPLACE TEMP TABLE {a} AS
WITH totals AS (
    SELECT series, t, number, is_output, sum(clicks) OVER past AS clicks, sum(part) OVER past AS part
    FROM events WINDOW past AS (PARTITION BY series, number ORDER BY t RANGE UNBOUNDED PRECEDING)
)
SELECT series, t, list((part / clicks / {scale})::FLOAT ORDER BY number) AS mean
FROM totals WHERE is_output AND clicks > 0 GROUP BY ALL;
