-- The differences between the rows of two loads, in one row. Tables: before, after (user_id, item_id, score, position).
WITH users AS (
    SELECT
        b.user_id IS NOT NULL AS in_before,
        a.user_id IS NOT NULL AS in_after,
        b.top[1] IS NOT DISTINCT FROM a.top[1] AS same_best,
        b.top IS DISTINCT FROM a.top AS top_changed,
        len(list_intersect(b.top, a.top)) / greatest(len(b.top), len(a.top), 1) AS top_shared
    FROM (
        SELECT user_id, list(item_id ORDER BY position) FILTER (position <= 10) AS top FROM before GROUP BY user_id
    ) AS b
    FULL JOIN (
        SELECT user_id, list(item_id ORDER BY position) FILTER (position <= 10) AS top FROM after GROUP BY user_id
    ) AS a USING (user_id)
),
by_user AS (
    SELECT
        count(*) FILTER (in_before) AS users_before,
        count(*) FILTER (in_after) AS users_after,
        count(*) FILTER (in_before AND NOT in_after) AS users_gone,
        count(*) FILTER (in_after AND NOT in_before) AS users_new,
        avg(CAST(same_best AS INTEGER)) FILTER (in_before AND in_after) AS same_first_item,
        avg(CAST(top_changed AS INTEGER)) FILTER (in_before AND in_after) AS top_10_changed,
        avg(top_shared) FILTER (in_before AND in_after) AS top_10_overlap
    FROM users
),
by_pair AS (
    SELECT
        count(*) AS pairs_in_both,
        avg(abs(a.score - b.score)) AS mean_score_change,
        max(abs(a.score - b.score)) AS largest_score_change
    FROM before AS b JOIN after AS a USING (user_id, item_id)
),
sizes AS (
    SELECT
        (SELECT count(*) FROM before) AS rows_before,
        (SELECT count(*) FROM after) AS rows_after,
        (SELECT avg(score) FROM before) AS mean_score_before,
        (SELECT avg(score) FROM after) AS mean_score_after
)
SELECT * FROM sizes, by_user, by_pair
