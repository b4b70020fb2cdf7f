-- The increments that an incremental build of one view needs, instead of all. The new rows are the same, because
-- 1. an entity gets a new row only if an increment of it became known after $after, or one of its days left a window
--    or advanced days_since_last_seen since, at most {reach} days after it. Other entities are left out;
-- 2. what had left every window and was known before the entity's horizon (see recent.sql; windows of {reach} days)
--    counts only in sums over all history, which are carried into each new series as a whole. It is summed, as if known
--    on time and on one day ({day}), or left out of a view without such sums.
-- {keys}: id columns; {columns}: id columns that the view reads, the keys among them; {reach}: 0 for a view without
-- windows; {ever}: whether the view has sums over all history; {day}, {known}: the day on which summed increments count,
-- and since when they are known; {joins}: tables that {day} reads.
-- Parameters: $after (last date of the previous build).
CREATE OR REPLACE TEMP TABLE increments AS
WITH active AS (
    SELECT {keys}, least($after, min(day) FILTER (WHERE late AND known > $after)) - {reach} - 1 AS horizon
    FROM recent WHERE known > $after OR day + {reach} > $after GROUP BY {keys}
)
SELECT {columns}, day, known, late, n, clicks FROM recent JOIN active USING ({keys})
WHERE NOT (day < horizon AND known <= horizon + {reach})
UNION ALL
SELECT {columns}, {day} AS day, {known} AS known, false, sum(n)::BIGINT, sum(clicks)::BIGINT
FROM all_increments JOIN active USING ({keys}) {joins}
WHERE {ever} AND all_increments.day < horizon AND all_increments.known <= horizon + {reach}
GROUP BY ALL
