-- One attribute's part of affinity.sql: of each series and midnight, the values with most rows, most rows first,
-- then by value. {a}: a name of its own; {a}_values (place, code) and {a}_codes (code, value) are tables, codes in
-- the order of values; {most}: values kept. Parameters: $prior_weight.
CREATE OR REPLACE TEMP TABLE deltas AS
SELECT series, code, t, sum(n) AS n, sum(c) AS c FROM counted JOIN {a}_values USING (place) GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE lines AS
SELECT series, code, t, n, c, false AS said FROM deltas
UNION ALL
-- A value that was met once is to be said at every later midnight of its series.
SELECT series, code, own.t, 0, 0, true
FROM own JOIN (SELECT series, code, min(t) AS met FROM deltas GROUP BY ALL) USING (series)
WHERE own.t >= met;
CREATE OR REPLACE TEMP TABLE {a} AS
WITH totals AS (
    SELECT series, code, t, said, sum(n) OVER past AS n, sum(c) OVER past AS c
    FROM lines WINDOW past AS (PARTITION BY series, code ORDER BY t RANGE UNBOUNDED PRECEDING)
), kept AS (
    SELECT series, t, code, n, ln((c + ctr * $prior_weight) / (n + $prior_weight) / ctr) AS lift,
           row_number() OVER (PARTITION BY series, t ORDER BY n DESC, code) AS place
    FROM totals JOIN own USING (series, t) WHERE said AND n > 0
    QUALIFY place <= {most}
)
SELECT series, t, list({
    'value': value, 'rows': ln(1 + n)::FLOAT, 'lift': lift::FLOAT
} ORDER BY place) AS met
FROM kept JOIN {a}_codes USING (code) GROUP BY ALL;
