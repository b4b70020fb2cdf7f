-- What an entity met and clicked by each value of an item's attributes, over all history, at each midnight where
-- that changes; its own smoothed CTR is what each value's is compared with. Each step is a table, so that the next
-- is planned by what it really holds.
-- {keys}: id columns; {same_keys}: their equality; {parts}: the statements of affinity_attribute.sql for each
-- attribute; {joins}, {columns}: what reads them. Parameters: $prior_ctr, $prior_weight.
CREATE OR REPLACE TEMP TABLE series AS
SELECT row_number() OVER () AS series, *
FROM (SELECT DISTINCT {keys}, restated_at, lo FROM entries WHERE enter >= lo);
CREATE OR REPLACE TEMP TABLE counted AS
SELECT series, series.lo, place, enter AS t, sum(n) AS n, sum(clicks) AS c
FROM entries JOIN series ON {same_keys} AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE own AS
SELECT series, t, (c + $prior_ctr * $prior_weight) / (n + $prior_weight) AS ctr
FROM (
    SELECT series, lo, t, sum(n) OVER past AS n, sum(c) OVER past AS c
    FROM (SELECT series, lo, t, sum(n) AS n, sum(c) AS c FROM counted GROUP BY ALL)
    WINDOW past AS (PARTITION BY series ORDER BY t ROWS UNBOUNDED PRECEDING)
) WHERE t >= lo;
{parts}
SELECT {keys}, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp, {columns}
FROM own JOIN series USING (series) {joins}
