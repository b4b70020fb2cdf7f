-- One row per night (a date with a load or a failure): whether all of its domains are published, or why not.
-- A domain with the verdict absent is not waited for, and a night that `mmlora gc` freed has no row.
-- The columns are a contract: new ones are added at the end, existing ones never change.
--   score_date    the night
--   domains       domains to publish
--   published     domains published
--   complete      whether all domains are published: the marker to wait for
--   completed_at  when the last domain was published (UTC); null until complete
--   missing       "domain: why" of the unpublished domains, separated by "; "; null when complete
WITH attempted AS (
    SELECT score_date, domain_id FROM score_loads WHERE rows_freed_at IS NULL
    UNION SELECT score_date, domain_id FROM night_failures
),
due AS (
    SELECT score_date, domain_id FROM attempted
    UNION SELECT as_of, domain_id FROM domain_verdicts WHERE as_of IN (SELECT score_date FROM attempted)
),
night_domains AS (
    SELECT
        due.score_date,
        due.domain_id,
        publications.load_key,
        publications.published_at,
        CASE WHEN publications.load_key IS NULL THEN
            CAST(due.domain_id AS TEXT) || ': ' || coalesce(
                (
                    SELECT 'a load is ' || max(score_loads.state) FROM score_loads
                    WHERE score_loads.domain_id = due.domain_id AND score_loads.score_date = due.score_date
                        AND score_loads.state IN ('running', 'staged')
                ),
                night_failures.reason,
                CASE WHEN domain_verdicts.verdict = 'broken' THEN 'broken, see mmlora validate' END,
                'not scored'
            )
        END AS missing
    FROM due
    LEFT JOIN publications ON publications.domain_id = due.domain_id AND publications.score_date = due.score_date
    LEFT JOIN night_failures ON night_failures.domain_id = due.domain_id AND night_failures.score_date = due.score_date
    LEFT JOIN domain_verdicts ON domain_verdicts.domain_id = due.domain_id AND domain_verdicts.as_of = due.score_date
    WHERE publications.load_key IS NOT NULL OR coalesce(domain_verdicts.verdict, '') <> 'absent'
    ORDER BY due.score_date, due.domain_id
)
SELECT
    score_date,
    count(*) AS domains,
    count(load_key) AS published,
    count(*) = count(load_key) AS complete,
    CASE WHEN count(*) = count(load_key) THEN max(published_at) END AS completed_at,
    string_agg(missing, '; ') AS missing
FROM night_domains
GROUP BY score_date
