"""The training DAG: when `[training] schedule` says, or on demand for any date."""

from airflow.sdk import TriggerRule, chain, dag

from mmlora.airflow_plugin import forms
from mmlora.airflow_plugin.promotion import decide_promotion
from mmlora.airflow_plugin.tasks import (
    module,
    on_training_schedule,
    options,
    run_date,
    step,
    workspace_task,
)


@dag(**on_training_schedule(), params=forms.TRAINING)
def training():
    """Train the backbone on all domains, then the experts of each rich one, then the gate that mixes them."""

    @workspace_task()
    def validate():
        """Check the data and give each domain its verdict: `rich`, `thin`, `absent` or `broken`."""
        return module("pipeline.validate").validate(run_date()).verdicts

    @workspace_task(
        doc_md="Join each interaction with its features as of its own time; encode the training set."
    )
    def prepare():
        return module("runs.steps").prepare(run_date(), **options(*forms.CHOICES))

    tune = step("runs.tuning", "tune", "Try other settings on validation rows, if requested.", "tune_minutes")
    train_backbone = step("runs.steps", "train_backbone", "Phase 1: the network that all domains share.")
    expert_domains = step("runs.steps", "expert_domains", "List the domains whose verdict allows experts.")

    @workspace_task(
        map_index_template="{{ task.op_kwargs['domain'] }}", doc_md="Phase 2: a domain's own experts."
    )
    def train_expert(run, domain):
        return module("runs.steps").train_expert(run, domain)

    @workspace_task(trigger_rule=TriggerRule.NONE_FAILED)
    def train_gate(run):
        """Phase 3: how each domain mixes the experts; all else is frozen. Runs even without experts."""
        return module("runs.steps").train_gate(run)

    @workspace_task(doc_md="Calibrate on the validation rows, then measure once on the test rows.")
    def evaluate(run):
        return {phase: metrics.wauc for phase, metrics in module("runs.steps").evaluate(run).items()}

    train_baselines = step("runs.baselines", "train_baselines", "Train what the model is compared with.")

    @workspace_task(doc_md="Compare with item CTR, logistic regression and LightGBM on the same test rows.")
    def judge(run):
        return module("runs.judging").judge(run).sentence

    refit = step("runs.refitting", "refit", "Train the judged model again on all rows, for as many epochs.")
    register = step(
        "runs.registering", "register", "Store the bundle as champion or challenger.", "accept_below_baseline"
    )

    chain(validate(), prepared := prepare())
    run = tune(prepared)
    experts = train_expert.partial(run=run).expand(domain=expert_domains(train_backbone(run)))
    chain(experts, train_gate(run), evaluate(run), judged := judge(run), refit(run), version := register(run))
    chain(train_baselines(run), judged)
    decide_promotion(version)


training()
