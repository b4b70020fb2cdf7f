-- The increments that can change a row after $after (the last date of the previous build): those known since, and
-- those of days that were still in the longest window.
CREATE OR REPLACE TEMP TABLE recent AS
SELECT user_id, item_id, domain_id, day, known, late FROM all_increments WHERE known > $after OR day + 31 > $after
