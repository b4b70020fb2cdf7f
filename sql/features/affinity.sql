-- An entity's rows and clicks by value of the items' attributes, over all history, at each midnight where they
-- change, and the entity's own smoothed CTR, with which each value's is compared. Each step is a table, so that
-- DuckDB plans the next one with actual sizes.
-- {keys}: id columns; {same_keys}: the condition that they are equal; {parts}: the statements of
-- affinity_attribute.sql, once per attribute; {joins}, {columns}: the joins and columns that read their results.
-- Parameters: $prior_ctr, $prior_weight.
CREATE OR REPLACE TEMP TABLE series AS
SELECT row_number() OVER () AS series, *
FROM (SELECT DISTINCT {keys}, restated_at, lo FROM entries WHERE enter >= lo);
CREATE OR REPLACE TEMP TABLE counted AS
SELECT series, series.lo, item_version, enter AS t, sum(n) AS n, sum(clicks) AS c
FROM entries JOIN series ON {same_keys} AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE entity_totals AS
SELECT series, t, (c + $prior_ctr * $prior_weight) / (n + $prior_weight) AS ctr
FROM (
    SELECT series, lo, t, sum(n) OVER past AS n, sum(c) OVER past AS c
    FROM (SELECT series, lo, t, sum(n) AS n, sum(c) AS c FROM counted GROUP BY ALL)
    WINDOW past AS (PARTITION BY series ORDER BY t ROWS UNBOUNDED PRECEDING)
) WHERE t >= lo;
{parts}
SELECT {keys}, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp, {columns}
FROM entity_totals JOIN series USING (series) {joins}
