"""The promotion DAG: make a model the champion, or go back to the champion before, by hand."""

from airflow.sdk import dag

from mmlora.airflow_plugin import forms
from mmlora.airflow_plugin.promotion import decide_by_hand
from mmlora.airflow_plugin.tasks import on_demand, options, workspace_task


@dag(**on_demand(runs=1), params=forms.PROMOTION)
def promotion():
    """Promote a model version or roll back, as `mmlora promote` and `mmlora rollback` do.

    The decision is stored with the name of the user who triggered the run. A promotion is refused if the
    model is worse than the champion, or below its best baseline, unless the form accepts that.
    """

    @workspace_task()
    def decide(dag_run=None):
        """Compare the model with the champion, and decide; a rollback compares nothing."""
        return decide_by_hand(who=dag_run.triggering_user_name, **options(*forms.PROMOTION))

    decide()


promotion()
