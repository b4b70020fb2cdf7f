-- One vector's part of taste.sql. {a}: a name of its own; {a}_values (place, vector) is a table of lists of whole
-- numbers; null where every click was taken back.
{a}_sums AS (
    SELECT series, t, number, sum(c) AS clicks, sum(c * part::HUGEINT) AS part FROM (
        SELECT series, t, c, unnest(vector) AS part, generate_subscripts(vector, 1) AS number
        FROM counted JOIN {a}_values USING (place)
    ) GROUP BY ALL
), {a}_lines AS (
    SELECT series, t, number, clicks, part, false AS said FROM {a}_sums
    UNION ALL
    SELECT series, own.t, number, 0, 0, true
    FROM own JOIN (SELECT series, number, min(t) AS met FROM {a}_sums GROUP BY ALL) USING (series)
    WHERE own.t >= met
), {a}_totals AS (
    SELECT series, t, number, said, sum(clicks) OVER past AS clicks, sum(part) OVER past AS part
    FROM {a}_lines WINDOW past AS (PARTITION BY series, number ORDER BY t RANGE UNBOUNDED PRECEDING)
), {a} AS MATERIALIZED (
    SELECT series, t, list((part / clicks / {scale})::FLOAT ORDER BY number) AS mean
    FROM {a}_totals WHERE said AND clicks > 0 GROUP BY ALL
)
