"""``mmlora promote --by-policy`` and ``--explain``: the settings ``[promotion]`` decide about a challenger.

Whatever is decided is appended to the log of decisions with its evidence, also that it stays the challenger.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime

from mmlora.errors import UsageError
from mmlora.judging.promotion import ALL_DOMAINS, Evidence, Ruling, rule
from mmlora.pipeline.promote import make_champion
from mmlora.records import Record
from mmlora.runs.champions import CHALLENGER, decide
from mmlora.runs.held_out import compare_with_champions
from mmlora.schema import midnight
from mmlora.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyOutcome(Record):
    """What the policy decided, or would decide.

    Attributes:
        model_version: the challenger.
        decided: whether the decision is in force; False if it was only asked for.
        ruling: the decision and its reason.
        evidence: the comparison with the champions; None if there is no other champion.
    """

    model_version: str
    decided: bool
    ruling: Ruling
    evidence: Evidence | None = None


def explain(model_version: str, *, as_of: date | None = None) -> PolicyOutcome:
    """Compare a version with the champions, and return what the policy says of it, without deciding anything.

    Args:
        model_version: the version.
        as_of: compare on rows known on this day at 00:00 UTC; those known now when None.

    Raises:
        UsageError: the version does not exist.
        ContractError: the version's features or files are gone.
    """
    return _weighed(open_workspace(), model_version, as_of)


def promote_by_policy(
    model_version: str, *, as_of: date | None = None, who: str | None = None, note: str = ""
) -> PolicyOutcome:
    """Promote a challenger for all domains, for some, or not at all, as the settings say.

    Args:
        model_version: the version.
        as_of: see :func:`explain`.
        who: who approved it; the user of this machine when None.
        note: added to the reason that is stored.

    Raises:
        UsageError: the version does not exist, or isn't the challenger.
        ContractError: see :func:`explain`.
    """
    workspace = open_workspace()
    outcome = _weighed(workspace, model_version, as_of)
    if outcome.evidence is None:
        return outcome
    if not _is_challenger(workspace, model_version):
        raise UsageError(
            f"{model_version} is not the challenger, so the policy does not apply to it: to promote it by "
            f"hand, mmlora promote {model_version}"
        )
    ruling = outcome.ruling
    why = f"by policy: {ruling.reason}" + (f" ({note})" if note else "")
    for name in ruling.promoted:
        target = None if name == ALL_DOMAINS else workspace.domain(name)
        make_champion(workspace, model_version, target, why, who=who, evidence=outcome.evidence)
    if not ruling.promoted:
        _keep(workspace, outcome.evidence, why, who)
    logger.info("%s: %s", model_version, described(ruling))
    return PolicyOutcome(model_version, True, ruling, outcome.evidence)


def question(model_version: str, *, as_of: date) -> tuple[str, str] | None:
    """Return what a person is asked before a promotion, as a subject and text (Markdown).

    Args:
        model_version: a version that was registered.
        as_of: see :func:`explain`.

    Returns:
        None if the settings require no approval, or the policy wouldn't promote the version.
    """
    workspace = open_workspace()
    if not workspace.settings.promotion.approval or not _is_challenger(workspace, model_version):
        return None
    outcome = _weighed(workspace, model_version, as_of)
    if outcome.evidence is None or not outcome.ruling.promoted:
        return None
    return f"Promote {model_version}?", _as_markdown(outcome.ruling, outcome.evidence)


def after_training(model_version: str, *, as_of: date, who: str | None, agreed: bool) -> str:
    """Decide about a version that the training DAG has registered, and return the decision as a sentence.

    Args:
        model_version: the version.
        as_of: see :func:`explain`.
        who: who was asked; None if nobody was.
        agreed: whether they agreed.
    """
    workspace = open_workspace()
    if not _is_challenger(workspace, model_version):
        return f"{model_version} is not the challenger: nothing is decided"
    if agreed:
        outcome = promote_by_policy(model_version, as_of=as_of, who=who, note="approved" if who else "")
        return f"{model_version} {described(outcome.ruling)}"
    outcome = _weighed(workspace, model_version, as_of)
    if outcome.evidence is not None:
        _keep(workspace, outcome.evidence, f"not approved, though by policy {outcome.ruling.reason}", who)
    return f"{model_version} stays the challenger: {who} did not approve"


def described(ruling: Ruling) -> str:
    """Return a ruling as a sentence."""
    if not ruling.promoted:
        return f"stays the challenger: {ruling.reason}"
    return f"becomes the champion of {', '.join(ruling.promoted)}: {ruling.reason}"


def _weighed(workspace: Workspace, model_version: str, as_of: date | None) -> PolicyOutcome:
    known_as_of = datetime.now(UTC) if as_of is None else midnight(as_of)
    evidence = compare_with_champions(workspace, model_version, known_as_of)
    if evidence is None:
        ruling = Ruling((), "there is no other champion to compare it with")
    else:
        ruling = rule(evidence, by_domain=workspace.settings.promotion.scope == "domain")
    return PolicyOutcome(model_version, False, ruling, evidence)


def _is_challenger(workspace: Workspace, model_version: str) -> bool:
    with workspace.open_warehouse() as warehouse:
        return warehouse.current(CHALLENGER) == model_version


def _as_markdown(ruling: Ruling, evidence: Evidence) -> str:
    lines = [
        f"By policy it {described(ruling)}.",
        "",
        "| domain | rows | auc | champion's | difference | interval | challenger is |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in (*evidence.domains, evidence.pooled):
        figures = (row.auc, row.champion_auc, row.difference)
        cells = ["-" if value is None else f"{value:.4f}" for value in figures]
        interval = "-" if row.low is None or row.high is None else f"{row.low:+.4f} to {row.high:+.4f}"
        lines.append(f"| {row.domain} | {row.rows:,} | {' | '.join(cells)} | {interval} | {row.standing} |")
    return "\n".join(lines)


def _keep(workspace: Workspace, evidence: Evidence, why: str, who: str | None) -> None:
    decide(
        workspace,
        evidence.challenger,
        domain=None,
        alias=CHALLENGER,
        why=why,
        metrics={},
        evidence=evidence.to_json(),
        who=who,
    )
