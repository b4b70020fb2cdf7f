-- One row per day of an entity that counts in a series of feature rows, with the midnight at which it enters.
-- Series: the base series (restated_at null), in which a day enters at the first midnight by which it is known; and
-- one per late knowledge instant of the entity, in which everything known by then enters at day + 1, as if on time.
-- A series is written for lo <= T <= hi; what entered before is carried in at lo - 1.
-- {keys}: id columns; {daily_keys}: the same, qualified; {detail}: a further column by which a day's counts are
-- grouped, with a comma before it, or nothing; {no_detail}: as many nulls; {reach}: days after which a day has left
-- the view's last window (NULL = never); {which}: condition on the increments; {joined}: a comma and the midnight
-- from which a day's counts were known, or nothing.
-- Parameters: $after (last date of the previous build), $through, $restated (last late instant of the previous build).
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
           day, known_day AS joined, late AND known_day > $after AS late_data, n, clicks
    FROM daily
    UNION ALL
    SELECT {daily_keys}{detail}, restated_at, lo, hi, day, day + 1, false, n, clicks
    FROM daily JOIN late_instants USING ({keys})
    WHERE lo <= hi AND known <= restated_at AND day < hi
    UNION ALL
    -- Where late data gave an earlier series a row, a later series needs one too.
    SELECT {daily_keys}{no_detail}, restated_at, lo, hi, NULL, known_day, true, 0, 0
    FROM daily JOIN late_instants USING ({keys})
    WHERE late AND known < restated_at AND known_day BETWEEN lo AND hi
)
SELECT {keys}{detail}, restated_at, lo, hi, day, greatest(joined, lo - 1) AS enter{joined},
       coalesce(joined = day + 1, false) AS prompt, bool_or(late_data) AS late_data,
       sum(n) AS n, sum(clicks) AS clicks
FROM series
WHERE joined <= hi AND coalesce(greatest(joined, lo - 1) <= day + {reach}, true)
GROUP BY ALL
