"""Derive a domain's verdict from its failed expectations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from mmlora.check_rules import AuditCheck
from mmlora.schema import DomainVerdict, Id, Verdict

POLICY: dict[Verdict, str] = {
    "rich": "trains its own experts",
    "thin": "trains no expert of its own; relies on the others through the gate",
    "absent": "trains nothing; scored by the backbone alone",
    "broken": "not trained on and not scored until its rows are repaired",
}
# From worst to best: the worst failure decides, and only failures of that kind are given as reasons.
_ORDER: tuple[Verdict, ...] = ("broken", "absent", "thin")


def domain_verdict(
    domain: Id,
    figures: Mapping[str, Any],
    failures: Sequence[tuple[Verdict, str]],
    *,
    as_of: date,
    checks: tuple[AuditCheck, ...] = (),
) -> DomainVerdict:
    """Return a domain's verdict.

    Args:
        domain: the domain's id.
        figures: its row of the frame.
        failures: the verdict of each failed expectation, and the reason.
        as_of: the date of the validation.
        checks: the outcome of each check.
    """
    kinds = {verdict for verdict, _ in failures}
    verdict: Verdict = next((kind for kind in _ORDER if kind in kinds), "rich")
    return DomainVerdict(
        domain_id=domain,
        as_of=as_of,
        verdict=verdict,
        rows=figures["rows"],
        positives=figures["positives"],
        users=figures["users"],
        items=figures["items"],
        density=figures["density"],
        ctr=figures["ctr"],
        policy=POLICY[verdict],
        reasons=tuple(reason for kind, reason in failures if kind == verdict),
        checks=checks,
    )
