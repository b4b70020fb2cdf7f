-- The mean of the vectors of the items that an entity clicked, at each midnight where that changes.
-- Vectors are whole numbers of 1 / {scale}, so that sums are exact in whatever order they are taken.
-- {keys}: id columns; {vectors}: a common table of taste_vector.sql for each; {joins}, {columns}: what reads them.
WITH series AS MATERIALIZED (
    SELECT row_number() OVER () AS series, *
    FROM (SELECT DISTINCT {keys}, restated_at, lo FROM entries WHERE enter >= lo)
), counted AS MATERIALIZED (
    SELECT series, place, enter AS t, sum(clicks)::BIGINT AS c
    FROM entries JOIN series ON {same_keys} AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
    GROUP BY ALL
), own AS MATERIALIZED (
    SELECT DISTINCT series, enter AS t
    FROM entries JOIN series ON {same_keys} AND entries.restated_at IS NOT DISTINCT FROM series.restated_at
    WHERE enter >= series.lo
), {vectors}
SELECT {keys}, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp, {columns}
FROM own JOIN series USING (series) {joins}
