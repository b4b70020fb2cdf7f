-- One row for each day of an entity that a series of feature rows counts in, and the midnight it enters.
-- Series: the base one (restated_at null), where a day enters at the first midnight it is known by; and one for
-- each late knowledge instant of the entity, where everything known by then enters at day + 1, as if on time.
-- A series is written for lo <= T <= hi; what entered before is carried in at lo - 1.
-- {keys}: id columns; {daily_keys}: the same, qualified; {detail}: a column by which a day's counts are kept
-- apart, with a comma before it, or nothing; {no_detail}: as many nulls; {reach}: days after which a day has left
-- the view's last window (NULL = never); {which}: the increments that count; {joined}: a comma and the midnight from
-- which a day's counts were known, or nothing.
-- Parameters: $after (last date built before), $through, $restated (last late instant restated before).
CREATE OR REPLACE TEMP TABLE entries AS
WITH daily AS (
    SELECT {keys}{detail}, day, known, late,
           known::DATE + (known > known::DATE::TIMESTAMP)::INTEGER AS known_day,
           sum(n)::DOUBLE AS n, sum(clicks)::DOUBLE AS clicks
    FROM increments WHERE {which} GROUP BY ALL
), late_instants AS (
    SELECT {keys}, known AS restated_at,
           greatest(min(day) + 1, CASE WHEN known <= $restated THEN $after + 1 ELSE min(day) + 1 END) AS lo,
           least(max(known_day) - 1, $through, coalesce(max(day) + {reach}, $through)) AS hi
    FROM daily WHERE late GROUP BY {keys}, known
), series AS (
    SELECT {keys}{detail}, NULL::TIMESTAMP AS restated_at, $after + 1 AS lo, $through AS hi,
           day, known_day AS joined, late AND known_day > $after AS news, n, clicks
    FROM daily
    UNION ALL
    SELECT {daily_keys}{detail}, restated_at, lo, hi, day, day + 1, false, n, clicks
    FROM daily JOIN late_instants USING ({keys})
    WHERE lo <= hi AND known <= restated_at AND day < hi
    UNION ALL
    -- Where late news gave an earlier series a row of its own, a later series must speak as well.
    SELECT {daily_keys}{no_detail}, restated_at, lo, hi, NULL, known_day, true, 0, 0
    FROM daily JOIN late_instants USING ({keys})
    WHERE late AND known < restated_at AND known_day BETWEEN lo AND hi
)
SELECT {keys}{detail}, restated_at, lo, hi, day, greatest(joined, lo - 1) AS enter{joined},
       coalesce(joined = day + 1, false) AS prompt, bool_or(news) AS news,
       sum(n) AS n, sum(clicks) AS clicks
FROM series
WHERE joined <= hi AND coalesce(greatest(joined, lo - 1) <= day + {reach}, true)
GROUP BY ALL
