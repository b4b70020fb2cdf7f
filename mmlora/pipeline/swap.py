"""``mmlora swap``: one domain's experts exchanged in a bundle, and every other part the same by hash.

Experts fit the backbone that they were trained on, and no other; so they go from one version to another
only where both share it. The gate is a part that stays, and mixes the new experts as it did the old: which
domains that reaches is said.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from mmlora.errors import UsageError
from mmlora.records import Record
from mmlora.runs.champions import CHAMPION, decide, mirror
from mmlora.runs.exchange import (
    ExchangeReport,
    champion_bundle,
    exchange_report,
    exchanged,
    refuse_strangers,
)
from mmlora.schema import Id
from mmlora.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwapOutcome(Record):
    """The outcome of a swap.

    Attributes:
        model_version: the composed version, champion now.
        before: the champion before.
        champion_of: the domains that follow it; ``all`` where none follows another.
        exchange: what the exchange changed.
    """

    model_version: str
    before: str
    champion_of: tuple[str, ...]
    exchange: ExchangeReport

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping in one level."""
        raw = super().to_json()
        return {**raw, **raw.pop("exchange")}


def swap(domain: str, source: str, *, why: str = "swapped by hand") -> SwapOutcome:
    """Give a domain the experts that it has in another version, in the model that scores it now.

    The composed version becomes champion of every domain that this model is champion of.

    Args:
        domain: whose experts are exchanged.
        source: the version to take them from.
        why: the reason, kept with the decision.

    Raises:
        UsageError: no such domain or version, no champion yet, or there is nothing to exchange.
        ContractError: the two versions' experts stand on different backbones.
    """
    workspace = open_workspace()
    target = workspace.domain(domain)
    base, other = champion_bundle(workspace, target), workspace.bundles.load(source)
    refuse_strangers(base, other, target)
    experts = [expert for expert in other.manifest.experts if expert.domain == target]
    if experts == [expert for expert in base.manifest.experts if expert.domain == target]:
        raise UsageError(
            f"{base.manifest.model_version} and {source} have the same experts of {domain}: nothing to swap"
        )
    manifest = exchanged(base.manifest, experts)
    version = workspace.bundles.save(manifest)
    reason = f"experts of {domain} as in {source}: {why}"
    with workspace.open_warehouse():
        followers = _followers(workspace, base.manifest.model_version)
        for follower in followers:
            decide(workspace, version, domain=follower, alias=CHAMPION, why=reason, metrics={})
    if None in followers:
        mirror(workspace, version, CHAMPION)
    champion_of = ["all"] if None in followers else [str(name) for name in followers]
    logger.info("swapped the experts of %s: %s is the champion of %s", domain, version, champion_of)
    report = exchange_report(base, workspace.bundles.load(version), target)
    return SwapOutcome(version, base.manifest.model_version, tuple(champion_of), report)


def _followers(workspace: Workspace, version: str) -> list[Id | None]:
    """Return whom a version is champion of: None stands for all, when no domain follows another."""
    domains = workspace.expected_domains()
    with workspace.open_warehouse() as warehouse, warehouse.reads_in_a_row():
        following = [name for name in domains if warehouse.current(CHAMPION, name) == version]
        for_all = warehouse.current(CHAMPION) == version
    return [None] if for_all and len(following) == len(domains) else list(following)
