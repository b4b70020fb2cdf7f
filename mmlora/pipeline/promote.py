"""``mmlora promote`` and ``rollback``: choose the champion in the warehouse, mirrored by MLflow's aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mmlora.errors import CheckError, UsageError
from mmlora.judgement import below_baseline
from mmlora.records import Record
from mmlora.runs.champions import ACCEPTED, CHAMPION, champions_of, decide, mirror
from mmlora.runs.held_out import compare_with_champions
from mmlora.schema import Id
from mmlora.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from mmlora.judging.promotion import Evidence
    from mmlora.warehouse.decisions import Promotion


@dataclass(frozen=True)
class PromotionOutcome(Record):
    """The outcome of a promotion or a rollback.

    Attributes:
        model_version: the champion now.
        domain: whose; None for all domains.
        before: the champion before; None where there was none.
        own_before: domains that had a champion of their own, which a decision for all domains replaces.
        evidence: the comparison with the champions before; None without one.
    """

    model_version: str
    domain: str | None
    before: str | None
    own_before: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence | None = None


def promote(
    model_version: str,
    *,
    domain: str | None = None,
    why: str = "promoted by hand",
    accept_below_baseline: bool = False,
    accept_worse: bool = False,
    who: str | None = None,
) -> PromotionOutcome:
    """Make a model version the champion of all domains, or of one.

    Args:
        model_version: the version.
        domain: this domain only.
        why: the reason, stored with the decision.
        accept_below_baseline: accept a version that is below its best baseline.
        accept_worse: accept a version that is worse than the champion.
        who: who decided; the user of this machine when None.

    Raises:
        UsageError: the version or domain does not exist.
        CheckError: the version is below its best baseline over all domains, or worse than the champion.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    below = below_baseline(workspace.bundles.load(model_version).manifest.judgement)
    if below is not None and not accept_below_baseline:
        raise CheckError(
            f"the comparison of {model_version} with its baselines",
            [below, "train a better one, or promote it all the same with --accept-below-baseline"],
        )
    with workspace.open_warehouse():  # opened once for the calls below
        evidence = compare_with_champions(workspace, model_version, datetime.now(UTC))
        worse = [
            str(each)
            for each in (evidence.of("worse") if evidence else ())
            if domain is None or each.domain == domain
        ]
        if worse and not accept_worse:
            raise CheckError(
                f"the comparison of {model_version} with the champion",
                [f"it is worse in {', '.join(worse)}", "to promote it all the same, use --accept-worse"],
            )
        why += f" ({ACCEPTED})" if below else ""
        why += " (accepted worse than the champion)" if worse else ""
        return make_champion(workspace, model_version, target, why, who=who, evidence=evidence)


def make_champion(
    workspace: Workspace,
    model_version: str,
    target: Id | None,
    why: str,
    *,
    who: str | None = None,
    goes_back_to: int | None = None,
    evidence: Evidence | None = None,
) -> PromotionOutcome:
    """Append the decision that makes a model the champion of a domain, or of all (None)."""
    bundle = workspace.bundles.load(model_version)
    metrics = {phase: values["wauc"] for phase, values in bundle.manifest.metrics.items()}
    with workspace.open_warehouse() as warehouse:
        before = warehouse.current(CHAMPION, target)
        own = champions_of(workspace) if target is None else {}
        decide(
            workspace,
            model_version,
            domain=target,
            alias=CHAMPION,
            why=why,
            metrics=metrics,
            goes_back_to=goes_back_to,
            evidence=None if evidence is None else evidence.to_json(),
            who=who,
        )
    if target is None:
        mirror(workspace, model_version, CHAMPION)
    return PromotionOutcome(
        model_version,
        None if target is None else str(target),
        before,
        {str(name): version for name, version in own.items() if version != before},
        evidence,
    )


def rollback(
    *, domain: str | None = None, why: str = "rolled back by hand", who: str | None = None
) -> PromotionOutcome:
    """Make the previous champion the champion again, by a new decision.

    Each repeated call goes back one more champion.

    Args:
        domain: this domain only.
        why: the reason, stored with the decision.
        who: who decided; the user of this machine when None.

    Raises:
        UsageError: there is no earlier champion.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        earlier = champion_before(warehouse.promotions(CHAMPION, target))
        if earlier is None:
            raise UsageError(f"there is no earlier champion of {domain or 'all domains'} to go back to")
        restored = _in_force(earlier)
        return make_champion(workspace, earlier.model_version, target, why, who=who, goes_back_to=restored)


def champion_before(decisions: Sequence[Promotion]) -> Promotion | None:
    """Return the newest decision for another version before the one in force, or None."""
    if not decisions:
        return None
    now = decisions[0]
    return next(
        (
            decision
            for decision in decisions
            if decision.id < _in_force(now) and decision.model_version != now.model_version
        ),
        None,
    )


def _in_force(decision: Promotion) -> int:
    """Return the id of the decision in force: the decision itself, or the one a rollback goes back to."""
    return decision.id if decision.goes_back_to is None else decision.goes_back_to
