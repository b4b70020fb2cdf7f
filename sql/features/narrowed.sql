-- The increments that an incremental build of one view needs, instead of all. The new rows are the same, because
-- 1. an entity gets a new row only if an increment of it became known after $after, or one of its days left a window
--    or advanced days_since_last_seen since ({reach} days after it; 0 for a view without either). Others are left out;
-- 2. what had left every window by then, and was known by then, counts only as part of a sum that each of the entity's
--    new series carries in before its first row. Such days are summed to one ("settled"), or left out of a view without
--    sums over all history. The first row of a series is due the day after $after, or after the first day that late
--    data touches. The horizon is 32 days before the earliest of these dates: 31 for the windows, one for carrying in.
-- {keys}: id columns; {columns}: columns that the view reads, the keys among them; {settles}: further condition on what
-- is summed; {ever}: whether the view has sums over all history; {joins}: tables that the condition reads.
-- Parameters: $after (last date of the previous build).
CREATE OR REPLACE TEMP TABLE increments AS
WITH active AS (
    SELECT {keys}, least($after, min(day) FILTER (WHERE late AND known > $after)) - {reach} - 1 AS horizon
    FROM recent WHERE known > $after OR day + {reach} > $after GROUP BY {keys}
), needed AS NOT MATERIALIZED (
    SELECT {columns}, day, known, late, n, clicks, horizon,
           day < horizon AND known <= horizon + {reach} AND {settles} AS settled
    FROM all_increments JOIN active USING ({keys}) {joins}
)
SELECT {columns}, day, known, late, n, clicks FROM needed WHERE NOT settled
UNION ALL
SELECT {columns}, horizon - 1, horizon::TIMESTAMP, false, sum(n)::BIGINT, sum(clicks)::BIGINT
FROM needed WHERE settled AND {ever} GROUP BY {columns}, horizon
