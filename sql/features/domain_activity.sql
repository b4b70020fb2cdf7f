-- A domain's rows, distinct users and items, density and CTR over 30 days, at each midnight where they change.
-- A user counts from the midnight by which one of their days is known until 31 days after that day, or until all of
-- its rows are withdrawn. Overlapping periods count once: each adds only what extends beyond the earlier ones.
-- Parameters: $prior_ctr, $prior_weight.
WITH bounds AS (
    SELECT DISTINCT domain_id, restated_at, lo, hi FROM entries
), counted AS (
    SELECT 'user' AS side, domain_id, user_id::VARCHAR AS id, day, known, sum(n) AS n
    FROM increments WHERE n <> 0 GROUP BY ALL
    UNION ALL
    SELECT 'item', domain_id, item_id::VARCHAR, day, known, sum(n) FROM increments WHERE n <> 0 GROUP BY ALL
), running AS (
    SELECT side, domain_id, id, day, known, sum(n) OVER versions AS rows, lead(known) OVER versions AS until
    FROM counted WINDOW versions AS (PARTITION BY side, domain_id, id, day ORDER BY known)
), covers AS (
    SELECT side, domain_id, restated_at, lo, hi, id,
           CASE WHEN restated_at IS NOT NULL THEN day + 31
                ELSE least(day + 31, until::DATE + (until > until::DATE::TIMESTAMP)::INTEGER) END AS ends,
           CASE WHEN restated_at IS NOT NULL THEN day + 1
                ELSE known::DATE + (known > known::DATE::TIMESTAMP)::INTEGER END AS starts
    FROM running JOIN bounds USING (domain_id)
    WHERE rows > 0 AND day + 31 >= lo AND day < hi
      AND (restated_at IS NULL OR (known <= restated_at AND coalesce(until > restated_at, true)))
), unions AS (
    SELECT *, max(ends) OVER (
        PARTITION BY side, domain_id, restated_at, id ORDER BY starts, ends
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS covered
    FROM covers WHERE starts <= hi AND starts < ends
), reaches AS (
    SELECT *, greatest(starts, coalesce(covered, starts), lo - 1) AS begins FROM unions
), deltas AS (
    SELECT domain_id, restated_at, lo, hi, enter AS t, late_data, n, clicks AS c, 0 AS users, 0 AS items FROM entries
    UNION ALL
    SELECT domain_id, restated_at, lo, hi, day + 31, false, -n, -clicks, 0, 0
    FROM entries WHERE day + 31 >= enter
    UNION ALL
    SELECT domain_id, restated_at, lo, hi, unnest([begins, ends]), false, 0, 0,
           unnest([1, -1]) * (side = 'user')::INTEGER, unnest([1, -1]) * (side = 'item')::INTEGER
    FROM reaches WHERE begins < ends
), points AS (
    SELECT domain_id, restated_at, lo, t, bool_or(late_data) AS late_data,
           sum(n) AS n, sum(c) AS c, sum(users)::DOUBLE AS users, sum(items)::DOUBLE AS items
    FROM deltas WHERE t <= hi GROUP BY ALL
), totals AS (
    SELECT domain_id, restated_at, lo, t, late_data,
           sum(n) OVER past AS n, sum(c) OVER past AS c,
           sum(users) OVER past AS users, sum(items) OVER past AS items
    FROM points
    WINDOW past AS (PARTITION BY domain_id, restated_at ORDER BY t ROWS UNBOUNDED PRECEDING)
), changes AS (
    -- A midnight with the same figures as the last needs no row, unless late data may have restated the last one.
    -- Before the first there were none, and an increment doesn't read what has left the window: both are zeros.
    SELECT *, late_data OR (n, c, users, items) IS DISTINCT FROM (
        lag((n, c, users, items), 1, (0.0, 0.0, 0.0, 0.0)) OVER (PARTITION BY domain_id, restated_at ORDER BY t)
    ) AS changed
    FROM totals
), touched AS (
    -- Late data restates nothing after the month that it touches.
    SELECT DISTINCT domain_id, known AS restated_at, (day + o::INTEGER) AS t
    FROM increments, range(1, 32) AS ages(o) WHERE late
)
SELECT domain_id, t::TIMESTAMPTZ AS event_timestamp,
       coalesce(restated_at, t::TIMESTAMP)::TIMESTAMPTZ AS created_timestamp,
       n::FLOAT AS interactions_30d, users::FLOAT AS users_30d, items::FLOAT AS items_30d,
       coalesce(n / nullif(users * items, 0), 0)::FLOAT AS density_30d,
       ((c + $prior_ctr * $prior_weight) / (n + $prior_weight))::FLOAT AS ctr_30d
FROM changes
WHERE t >= lo AND CASE
    WHEN restated_at IS NULL THEN changed
    ELSE (domain_id, restated_at, t) IN (SELECT (domain_id, restated_at, t) FROM touched)
END
