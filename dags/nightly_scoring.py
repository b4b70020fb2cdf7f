"""The nightly DAG: fresh features and verdicts, then scores of every domain, published."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TriggerRule, chain, dag, task, task_group

from mmlora.airflow_plugin import forms
from mmlora.airflow_plugin.tasks import SCORES_PUBLISHED, chosen, daily, module, options, run_date


@dag(**daily(hour=1), params=forms.NIGHTLY_SCORING)
def nightly_scoring():
    """Bring features and verdicts up to the date; then score, audit and publish each domain by itself.

    A domain that fails keeps no other from being published. Its run counts as failed, and its readers keep
    the scores that were published last.
    """

    @task
    def build_features():
        """Compute the activity features up to the date, and apply the feature definitions."""
        return module("pipeline.features").build_features(run_date()).to_json()

    @task
    def validate():
        """Check the data and give each domain its verdict; a `broken` domain isn't scored."""
        return module("pipeline.validate").validate(run_date()).verdicts

    @task
    def scoring_domains(params=None):
        """Name the domains to score: those of the form, or all that may be."""
        names = module("nights.domains").scoring_domains(run_date(), **options("allow_stale", "override"))
        return chosen(names, params["domains"])

    @task(map_index_template="{{ task.op_kwargs['domain'] }}")
    def score(domain):
        """Score one domain's candidates with the champion; stage and audit the load."""
        return module("nights.load").score(run_date(), domain, **options(*forms.SCORE_OPTIONS))

    @task(map_index_template="{{ task.op_kwargs['domain'] }}")
    def publish(domain, load_id):
        """Write the load's rows, then move the pointer that readers follow."""
        return domain, module("pipeline.publish").publish(load_id)

    @task_group
    def domain(domain):
        return publish(domain=domain, load_id=score(domain=domain))

    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, outlets=[SCORES_PUBLISHED])
    def announce(loads, outlet_events=None):
        """Tell the DAGs that wait for the Asset which load of each domain was published."""
        outlet_events[SCORES_PUBLISHED].extra = {"date": run_date().isoformat(), "loads": dict(loads)}

    chain(build_features(), validate(), names := scoring_domains())
    announce(loads := domain.expand(domain=names))
    # The run fails with any domain, though the announcement of the others succeeds.
    loads >> EmptyOperator(task_id="all_published")


nightly_scoring()
