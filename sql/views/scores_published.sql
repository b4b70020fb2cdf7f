-- Every published score. The columns are a contract: new ones are added at the end, existing ones never change.
--   domain_id      the CTR domain
--   score_date     features as of this date, 00:00 UTC
--   user_id, item_id
--   score          calibrated probability of a click, 0 to 1
--   position       position in the user's list, 1 = best
--   model_version  the bundle that scored
--   load_id        the load of the row
--   published_at   when this load was published (UTC)
--   age_days       whole days from score_date to today (UTC), when the view is read
--   is_stale       whether that is more than the setting promises.max_age_days of the domain; null where none is known
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
