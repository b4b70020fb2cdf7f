-- The mean of the vectors of the items that an entity clicked, at each midnight where it changes.
-- Vectors are integers in units of 1 / {scale}, so that sums are exact in any order.
-- {keys}: id columns; {same_keys}: the condition that they are equal; {parts}: the statements of taste_vector.sql,
-- once per vector; {joins}, {columns}: the joins and columns that read their results.
CREATE OR REPLACE TEMP TABLE series AS
SELECT row_number() OVER () AS series, *
FROM (SELECT DISTINCT {keys}, restated_at, lo FROM entries WHERE enter >= lo);
CREATE OR REPLACE TEMP TABLE counted AS
SELECT series, series.lo, item_version, enter AS t, sum(clicks)::BIGINT AS c
FROM entries JOIN series ON {same_keys} AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE entity_totals AS SELECT DISTINCT series, t FROM counted WHERE t >= lo;
{parts}
SELECT {keys}, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp, {columns}
FROM entity_totals JOIN series USING (series) {joins}
