-- Windowed counts of every series at each midnight where they change: deltas, then cumulative sums.
-- A day's counts enter at `enter` and leave the window of w days at day + 1 + w. {offsets}: the days after an
-- active day on which the view's fields change (2, 8 and 31 are the windows' ends; on the days between,
-- days_since_last_seen increases). A day with corrections or withdrawals counts as seen only while it has rows that
-- count; its ticks stay, because a later series needs a row wherever an earlier one has one. Columns of windows that a
-- view leaves out must not be read from this result.
-- Parameters: $prior_ctr, $prior_weight.
WITH spans AS (
    SELECT * REPLACE (coalesce(restated_at, '-infinity') AS restated_at),
           lead(CASE WHEN prompt THEN day END IGNORE NULLS) OVER (
               PARTITION BY {keys}, restated_at ORDER BY day, prompt DESC
           ) AS next_day,
           min(n) OVER (PARTITION BY {keys}, restated_at, day) > 0 AS lasting
    FROM entries
), deltas AS (
    SELECT {keys}, restated_at, lo, enter AS t, CASE WHEN lasting THEN day END AS last_day,
           CASE WHEN enter <= day + 2 THEN n ELSE 0 END AS n1,
           CASE WHEN enter <= day + 2 THEN clicks ELSE 0 END AS c1,
           CASE WHEN enter <= day + 8 THEN n ELSE 0 END AS n7,
           CASE WHEN enter <= day + 8 THEN clicks ELSE 0 END AS c7,
           CASE WHEN enter <= day + 31 THEN n ELSE 0 END AS n30,
           CASE WHEN enter <= day + 31 THEN clicks ELSE 0 END AS c30,
           n, clicks AS c
    FROM spans
    UNION ALL
    SELECT {keys}, restated_at, lo, day + o, NULL,
           CASE WHEN o = 2 THEN -n ELSE 0 END, CASE WHEN o = 2 THEN -clicks ELSE 0 END,
           CASE WHEN o = 8 THEN -n ELSE 0 END, CASE WHEN o = 8 THEN -clicks ELSE 0 END,
           CASE WHEN o = 31 THEN -n ELSE 0 END, CASE WHEN o = 31 THEN -clicks ELSE 0 END,
           0, 0
    FROM spans, unnest({offsets}) AS ticks(o)
    -- From the next active day on, its own ticks advance days_since_last_seen.
    WHERE day + o BETWEEN enter AND hi AND (o IN (2, 8, 31) OR next_day IS NULL OR day + o <= next_day)
), points AS (
    SELECT {keys}, restated_at, lo, t, max(last_day) AS last_day,
           sum(n1) AS n1, sum(c1) AS c1, sum(n7) AS n7, sum(c7) AS c7,
           sum(n30) AS n30, sum(c30) AS c30, sum(n) AS n, sum(c) AS c
    FROM deltas GROUP BY ALL
), lives AS (
    SELECT {keys}, restated_at, day, enter, lead(enter) OVER life AS until, sum(n) OVER life AS rows_left
    FROM (SELECT {keys}, restated_at, day, enter, sum(n) AS n FROM spans WHERE NOT lasting GROUP BY ALL)
    WINDOW life AS (PARTITION BY {keys}, restated_at, day ORDER BY enter)
), seen AS (
    SELECT {keys}, restated_at, t, max(day) AS seen_day
    FROM points JOIN lives USING ({keys}, restated_at)
    WHERE rows_left > 0 AND t >= enter AND (until IS NULL OR t < until)
    GROUP BY ALL
), totals AS (
    SELECT {keys}, restated_at, lo, t, max(last_day) OVER past AS last_day,
           sum(n1) OVER past AS n1, sum(c1) OVER past AS c1, sum(n7) OVER past AS n7, sum(c7) OVER past AS c7,
           sum(n30) OVER past AS n30, sum(c30) OVER past AS c30, sum(n) OVER past AS n, sum(c) OVER past AS c
    FROM points
    WINDOW past AS (PARTITION BY {keys}, restated_at ORDER BY t ROWS UNBOUNDED PRECEDING)
)
SELECT {keys}, t::TIMESTAMPTZ AS event_timestamp,
       greatest(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp,
       n1::FLOAT AS interactions_1d, c1::FLOAT AS clicks_1d,
       ((c1 + $prior_ctr * $prior_weight) / (n1 + $prior_weight))::FLOAT AS ctr_1d,
       n7::FLOAT AS interactions_7d, c7::FLOAT AS clicks_7d,
       ((c7 + $prior_ctr * $prior_weight) / (n7 + $prior_weight))::FLOAT AS ctr_7d,
       n30::FLOAT AS interactions_30d, c30::FLOAT AS clicks_30d,
       ((c30 + $prior_ctr * $prior_weight) / (n30 + $prior_weight))::FLOAT AS ctr_30d,
       n::FLOAT AS interactions_ever, c::FLOAT AS clicks_ever,
       ((c + $prior_ctr * $prior_weight) / (n + $prior_weight))::FLOAT AS ctr_ever,
       (t - 1 - greatest(last_day, seen_day, t - 31))::FLOAT AS days_since_last_seen
FROM totals LEFT JOIN seen USING ({keys}, restated_at, t) WHERE t >= lo
