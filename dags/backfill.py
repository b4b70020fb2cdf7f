"""The backfill DAG: past nights that are missing, stale or failed, planned and scored domain by domain."""

from airflow.sdk import dag

from mmlora.airflow_plugin import forms
from mmlora.airflow_plugin.outcomes import report_backfill
from mmlora.airflow_plugin.tasks import chosen, module, on_demand, options, period, workspace_task


@dag(**on_demand(runs=16), params=forms.BACKFILL)
def backfill():
    """Plan the nights of some domains and dates, and score those that need it, as `mmlora backfill` does.

    Each domain has its own task, so one that fails stops no other, and clearing it goes on with what is left.
    Several runs may work side by side, and beside the nightly run.
    """

    @workspace_task()
    def domains(params=None):
        """Name the domains: those of the form, or all."""
        names = module("workspace").open_workspace().expected_domains()
        return chosen([str(name) for name in names], params["domains"])

    @workspace_task(
        map_index_template="{{ task.op_kwargs['domain'] }}",
        doc_md="Plan one domain's nights, log the plan, and score what it says unless it's only to be shown.",
    )
    def fill(domain):
        run = module("pipeline.backfill").backfill
        return report_backfill(run(domain, **period("start", "end"), **options(*forms.BACKFILL_OPTIONS)))

    fill.expand(domain=domains())


backfill()
