-- The items that come into, or leave, most users' first 10 places. Tables: before, after (user_id, item_id, position).
SELECT
    item_id,
    count(DISTINCT b.user_id) AS lists_before,
    count(DISTINCT a.user_id) AS lists_after
FROM (SELECT user_id, item_id FROM before WHERE position <= 10) AS b
FULL JOIN (SELECT user_id, item_id FROM after WHERE position <= 10) AS a USING (user_id, item_id)
GROUP BY item_id
HAVING lists_before <> lists_after
ORDER BY abs(lists_after - lists_before) DESC, item_id
LIMIT 10
