-- The candidates of one domain and date: one row of four lists.
--   users          active in the domain in [active_since, cutoff), known by then; sorted
--   items          seen by anybody in any domain before the cutoff, or with a profile valid by then; sorted
--   excluded_*     what the users have had, in any domain, as places in users and items; sorted by user, then item
-- The text in braces is replaced by interactions_current.sql (parameters interactions, known_as_of); item_profiles is a
-- temporary table. Further parameters: domain, active_since, cutoff.
WITH known AS MATERIALIZED (
    SELECT user_id, item_id, domain_id, event_timestamp
    FROM (
{interactions_current}
    )
    WHERE event_timestamp < $cutoff
),
users AS MATERIALIZED (
    SELECT user_id, row_number() OVER (ORDER BY user_id) - 1 AS user_row
    FROM (SELECT DISTINCT user_id FROM known WHERE domain_id = $domain AND event_timestamp >= $active_since)
),
items AS MATERIALIZED (
    SELECT item_id, row_number() OVER (ORDER BY item_id) - 1 AS item_row
    FROM (
        SELECT item_id FROM known
        UNION
        SELECT item_id FROM item_profiles WHERE event_timestamp <= $cutoff AND created_timestamp <= $known_as_of
    )
),
had AS MATERIALIZED (
    SELECT DISTINCT user_row, item_row FROM known JOIN users USING (user_id) JOIN items USING (item_id)
)
SELECT
    (SELECT list(user_id ORDER BY user_id) FROM users) AS users,
    (SELECT list(item_id ORDER BY item_id) FROM items) AS items,
    (SELECT list(user_row ORDER BY user_row, item_row) FROM had) AS excluded_users,
    (SELECT list(item_row ORDER BY user_row, item_row) FROM had) AS excluded_items
