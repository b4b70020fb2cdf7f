"""The maintenance DAG: what keeps the warehouse and the models sound, every morning after the night."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TriggerRule, chain, dag

from mmlora.airflow_plugin import forms
from mmlora.airflow_plugin.outcomes import evaluate_published, restate_late, shared, verified
from mmlora.airflow_plugin.tasks import daily, module, options, period, run_date, workspace_task


@dag(**daily(hour=4), params=forms.MAINTENANCE)
def maintenance():
    """Judge the published nights, share experts with new domains, restate for late data, free space, verify.

    A task that fails says what to do, and doesn't keep the next ones from running.
    """

    @workspace_task(trigger_rule=TriggerRule.ALL_DONE)
    def evaluate():
        """Measure published nights by the clicks that came; fail beyond the limits of `[quality]`."""
        return evaluate_published(**period("start"))

    @workspace_task(trigger_rule=TriggerRule.ALL_DONE)
    def share():
        """Give domains without an expert those of similar domains, or one of their own, where that helps."""
        return shared(module("pipeline.share").share_experts(run_date()))

    @workspace_task(trigger_rule=TriggerRule.ALL_DONE)
    def restate():
        """Score nights again that late rows would change, newest first, up to the form's number of rows."""
        return restate_late(**options("late_days", "max_rows"))

    @workspace_task(trigger_rule=TriggerRule.ALL_DONE)
    def gc():
        """Free rows and files that nobody needs, by the retention of the settings."""
        return module("pipeline.gc").gc(**options("dry_run")).to_json()

    @workspace_task(trigger_rule=TriggerRule.ALL_DONE)
    def verify():
        """Hash what readers get and the models behind it; fail with the command that mends each fault."""
        return verified(module("pipeline.verify").verify())

    tasks = [evaluate(), share(), restate(), gc(), verify()]
    chain(*tasks)
    # The run fails with any of them, though each runs whatever became of the one before.
    tasks >> EmptyOperator(task_id="all_succeeded")


maintenance()
