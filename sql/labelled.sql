-- What users were shown on a date, with the scores of two loads. Tables: shown (user_id, item_id, label), before and
-- after (user_id, item_id, score, position).
SELECT
    shown.label,
    b.score AS before,
    a.score AS after,
    coalesce(b.position <= 10, false) AS top_before,
    coalesce(a.position <= 10, false) AS top_after
FROM shown
LEFT JOIN before AS b USING (user_id, item_id)
LEFT JOIN after AS a USING (user_id, item_id)
ORDER BY shown.user_id, shown.item_id, shown.label
