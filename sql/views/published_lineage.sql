-- One row per published domain and date: what its scores go back to. Join it to a view of scores by load_id.
-- The columns are a contract: new ones are added at the end, existing ones never change.
--   domain_id, score_date, load_id, published_at, model_version   as in scores_published
--   rows                number of rows that were audited
--   content_hash        hash of these rows
--   bundle_hash         hash of the bundle's manifest, which names every part by its own hash
--   model_as_of         the day up to which the training data was read
--   data_fingerprint    of the training data
--   contract_hash       of the features that were read
--   model_code_version  version of mmlora that trained the model
--   model_base          the version that the model was composed from; null if it was trained whole
--   code_version        version of mmlora that scored the load
--   checks              JSON: the load's size, candidates and checks, with the outcome of each
-- Columns from bundle_hash on are null, except contract_hash and checks, where an older version recorded nothing.
SELECT
    publications.domain_id,
    publications.score_date,
    score_loads.load_id,
    publications.published_at,
    score_loads.model_version,
    score_loads.rows,
    score_loads.content_hash,
    score_models.bundle_hash,
    score_models.as_of AS model_as_of,
    score_models.data_fingerprint,
    score_loads.contract_hash,
    score_models.code_version AS model_code_version,
    score_models.base AS model_base,
    score_loads.code_version,
    score_loads.checks
FROM publications
JOIN score_loads ON score_loads.load_key = publications.load_key
LEFT JOIN score_models ON score_models.model_version = score_loads.model_version
