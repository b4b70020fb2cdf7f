"""The nightly DAG: fresh features and verdicts, then scores of every domain, published."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TriggerRule, chain, dag, task

from mmlora.airflow_plugin import forms
from mmlora.airflow_plugin.outcomes import announce_loads, settle
from mmlora.airflow_plugin.tasks import (
    DOMAIN_SCORES,
    SCORES_PUBLISHED,
    chosen,
    daily,
    module,
    options,
    run_date,
    workspace_task,
)


@dag(**daily(hour=1, deadline=True), params=forms.NIGHTLY_SCORING)
def nightly_scoring():
    """Bring features and verdicts up to the date; then score, audit and publish each domain by itself.

    Domains are scored in batches, each by one task that loads its libraries once. Then a short task per
    domain says what became of it. A domain that fails keeps no other from being published: its task fails,
    its readers keep the scores that were published last, and clearing its task scores it again, alone.
    """

    @workspace_task()
    def build_features():
        """Compute the activity features up to the date, and apply the feature definitions."""
        return module("pipeline.features").build_features(run_date()).to_json()

    @workspace_task()
    def validate():
        """Check the data and give each domain its verdict; a `broken` domain isn't scored."""
        return module("pipeline.validate").validate(run_date()).verdicts

    @workspace_task()
    def batches(params=None):
        """Divide the domains to score, those of the form or all that may be, into batches by their pairs."""
        names = module("nights.domains").scoring_domains(run_date(), **options("allow_stale", "override"))
        return module("nights.batches").batches(run_date(), chosen(names, params["domains"]))

    @workspace_task(
        map_index_template="{{ task.op_kwargs['domains'] | join(', ') | truncate(60) }}",
        doc_md="Score a batch with the champions; audit and publish each domain; list what became of each.",
    )
    def score(domains):
        score_and_publish = module("pipeline.score").score_and_publish
        night = score_and_publish(run_date(), domains=domains, **options(*forms.SCORE_OPTIONS))
        return [load.to_json() for load in night.loads]

    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def outcomes(batches):
        """List what became of the domains of all batches; one that failed or was killed has none."""
        return [outcome for batch in batches for outcome in batch]

    @task(
        map_index_template="{{ task.op_kwargs['outcome']['domain_id'] }}",
        doc_md="Succeed if the domain is published; else, cleared or retried, score it again, alone.",
    )
    def domain(outcome):
        return settle(outcome, options(*forms.SCORE_OPTIONS))

    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, outlets=[SCORES_PUBLISHED, DOMAIN_SCORES])
    def announce(loads, outlet_events=None):
        """Tell the DAGs that wait for an Asset which load of each domain was published."""
        announce_loads(outlet_events, dict(loads))

    chain(build_features(), validate(), parts := batches())
    scored = score.expand(domains=parts)
    announce(loads := domain.expand(outcome=outcomes(scored)))
    # The run fails with any batch or domain, though the announcement of the others succeeds.
    [scored, loads] >> EmptyOperator(task_id="all_published")


nightly_scoring()
