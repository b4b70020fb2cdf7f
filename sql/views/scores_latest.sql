-- The scores of each domain's newest published date. The columns are those of scores_published and part of the same contract.
SELECT
    publications.domain_id,
    publications.score_date,
    scores.user_id,
    scores.item_id,
    scores.score,
    scores.position,
    score_loads.model_version,
    score_loads.load_id,
    publications.published_at,
    days_since(publications.score_date) AS age_days,
    days_since(publications.score_date) > promises.max_age_days AS is_stale
FROM publications
JOIN score_loads ON score_loads.load_key = publications.load_key
JOIN scores
    ON scores.load_key = publications.load_key
    AND scores.score_date = publications.score_date
LEFT JOIN promises ON promises.domain_id = publications.domain_id
WHERE publications.score_date = (
    SELECT max(newer.score_date)
    FROM publications AS newer
    WHERE newer.domain_id = publications.domain_id
)
