-- One vector's part of taste.sql. {a}: a name of its own; {a}_values (place, vector) is a table of lists of whole
-- numbers; null where every click was taken back.
CREATE OR REPLACE TEMP TABLE deltas AS
SELECT series, t, number, sum(c) AS clicks, sum(c * part::HUGEINT) AS part FROM (
    SELECT series, t, c, unnest(vector) AS part, generate_subscripts(vector, 1) AS number
    FROM counted JOIN {a}_values USING (place)
) GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE lines AS
SELECT series, t, number, clicks, part, false AS said FROM deltas
UNION ALL
SELECT series, own.t, number, 0, 0, true
FROM own JOIN (SELECT series, number, min(t) AS met FROM deltas GROUP BY ALL) USING (series)
WHERE own.t >= met;
CREATE OR REPLACE TEMP TABLE {a} AS
WITH totals AS (
    SELECT series, t, number, said, sum(clicks) OVER past AS clicks, sum(part) OVER past AS part
    FROM lines WINDOW past AS (PARTITION BY series, number ORDER BY t RANGE UNBOUNDED PRECEDING)
)
SELECT series, t, list((part / clicks / {scale})::FLOAT ORDER BY number) AS mean
FROM totals WHERE said AND clicks > 0 GROUP BY ALL;
