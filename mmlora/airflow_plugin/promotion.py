"""Promotions: the last two tasks of the training DAG, and what the DAG `promotion` does by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import chain

from mmlora.airflow_plugin.tasks import in_workspace, module, run_date, workspace_task

PROMOTE, KEEP = "Promote", "Keep the champion"


class Approval(HITLOperator):  # type: ignore[misc]
    """Waits until a person has decided about a promotion, if ``[promotion] approval`` is set.

    Without the setting, and for a challenger that the policy wouldn't promote, nobody is asked.

    Args:
        version: the model version.
        kwargs: those of the operator.
    """

    template_fields: Collection[str] = ("subject", "body", "version")

    def __init__(self, *, version: Any, **kwargs: Any) -> None:
        super().__init__(subject="Promotion of a model", options=[PROMOTE, KEEP], **kwargs)
        self.version = version

    def execute(self, context: Any) -> Any:
        """Ask, and return the answer; None if nobody has to be asked."""
        with in_workspace():
            question = module("pipeline.promote_by_policy").question(self.version, as_of=run_date())
        if question is None:
            return None
        self.subject, self.body = question
        return super().execute(context)


def decide_promotion(version: Any) -> None:
    """Add the tasks that decide about the promotion of a registered version."""
    approve = Approval(
        task_id="approve",
        version=version,
        execution_timeout=None,  # else it would also limit how long a person may take to answer
        doc_md="Wait for a person's approval of the promotion, if the setting `promotion.approval` is on.",
    )

    @workspace_task()
    def promote(version: str, answer: Mapping[str, Any] | None) -> str:
        """Make the challenger the champion if it is better, by the settings `[promotion]`."""
        who, agreed = answered(answer)
        policy = module("pipeline.promote_by_policy")
        return str(policy.after_training(version, as_of=run_date(), who=who, agreed=agreed))

    chain(version, approve, promote(version, approve.output))


def answered(answer: Mapping[str, Any] | None) -> tuple[str | None, bool]:
    """Return who answered, and whether they agreed; without an answer nobody was asked."""
    if answer is None:
        return None, True
    user = answer.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "unknown"), answer["chosen_options"] == [PROMOTE]


def decide_by_hand(action: str, *, who: str | None, **options: Any) -> dict[str, Any]:
    """Promote or roll back, as `mmlora promote` and `mmlora rollback` do; return the outcome as JSON.

    Args:
        action: ``promote`` or ``rollback``.
        who: the user who triggered the run.
        options: the fields of the form that were filled in.

    Raises:
        UsageError: the version to promote isn't given, or a rollback is given one.
    """
    from mmlora.errors import UsageError

    version = options.pop("model_version", None)
    commands = module("pipeline.promote")
    if action == "promote":
        if version is None:
            raise UsageError("which model is promoted? Fill in the field Model version, see `mmlora status`")
        return dict(commands.promote(version, who=who, **options).to_json())
    if version is not None:
        raise UsageError(
            f"a rollback goes to the champion before: to make {version} the champion, promote it, else leave "
            "the field Model version empty"
        )
    kept = {name: value for name, value in options.items() if name in ("domain", "why")}
    return dict(commands.rollback(who=who, **kept).to_json())
