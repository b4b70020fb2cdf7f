-- The first positions of each user in scores_latest, as many as the setting promises.top_k of the domain says. The columns are those of scores_latest.
SELECT
    scores_latest.domain_id,
    scores_latest.score_date,
    scores_latest.user_id,
    scores_latest.item_id,
    scores_latest.score,
    scores_latest.position,
    scores_latest.model_version,
    scores_latest.load_id,
    scores_latest.published_at,
    scores_latest.age_days,
    scores_latest.is_stale
FROM scores_latest
LEFT JOIN promises ON promises.domain_id = scores_latest.domain_id
WHERE scores_latest.position <= coalesce(promises.top_k, scores_latest.position)
