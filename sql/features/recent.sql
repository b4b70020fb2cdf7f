-- The increments that an incremental build may need one by one: those of days since the horizon, and late ones.
-- The first new row of a series is due on the day after $after, or after the earliest day that new late data touches.
-- The horizon is 32 days before: 31 for the longest window, one because what counts before a series is carried into it
-- on the day before its first row. Parameters: $after (last date of the previous build).
CREATE OR REPLACE TEMP TABLE recent AS
SELECT * FROM all_increments
WHERE late OR day >= least($after, (SELECT min(day) FROM all_increments WHERE late AND known > $after)) - 32
