-- The mean of the vectors of the items that an entity clicked, at each midnight where that changes.
-- Vectors are whole numbers of 1 / {scale}, so that sums are exact in whatever order they are taken.
-- {keys}: id columns; {same_keys}: their equality; {parts}: the statements of taste_vector.sql for each vector;
-- {joins}, {columns}: what reads them.
CREATE OR REPLACE TEMP TABLE series AS
SELECT row_number() OVER () AS series, *
FROM (SELECT DISTINCT {keys}, restated_at, lo FROM entries WHERE enter >= lo);
CREATE OR REPLACE TEMP TABLE counted AS
SELECT series, series.lo, place, enter AS t, sum(clicks)::BIGINT AS c
FROM entries JOIN series ON {same_keys} AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE own AS SELECT DISTINCT series, t FROM counted WHERE t >= lo;
{parts}
SELECT {keys}, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp, {columns}
FROM own JOIN series USING (series) {joins}
