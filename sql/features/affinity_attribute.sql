-- The part of affinity.sql for one attribute: per series and midnight, the values with the most rows, ordered by rows
-- (descending), then by value. {a}: a unique name; {a}_values (item_version, code) and {a}_codes (code, value):
-- tables, with codes in the order of values; {most}: values kept. Parameters: $prior_weight.
CREATE OR REPLACE TEMP TABLE deltas AS
SELECT series, code, t, sum(n) AS n, sum(c) AS c FROM counted JOIN {a}_values USING (item_version) GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE events AS
SELECT series, code, t, n, c, false AS is_output FROM deltas
UNION ALL
-- A value has a row at every midnight of its series from the first one at which it occurs.
SELECT series, code, entity_totals.t, 0, 0, true
FROM entity_totals JOIN (SELECT series, code, min(t) AS met FROM deltas GROUP BY ALL) USING (series)
WHERE entity_totals.t >= met;
CREATE OR REPLACE TEMP TABLE {a} AS
WITH totals AS (
    SELECT series, code, t, is_output, sum(n) OVER past AS n, sum(c) OVER past AS c
    FROM events WINDOW past AS (PARTITION BY series, code ORDER BY t RANGE UNBOUNDED PRECEDING)
), ranked AS (
    SELECT series, t, code, n, ln((c + ctr * $prior_weight) / (n + $prior_weight) / ctr) AS lift,
           row_number() OVER (PARTITION BY series, t ORDER BY n DESC, code) AS rank
    FROM totals JOIN entity_totals USING (series, t) WHERE is_output AND n > 0
    QUALIFY rank <= {most}
)
SELECT series, t, list({
    'value': value, 'rows': ln(1 + n)::FLOAT, 'lift': lift::FLOAT
} ORDER BY rank) AS met
FROM ranked JOIN {a}_codes USING (code) GROUP BY ALL;
