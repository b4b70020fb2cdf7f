"""``mmlora swap``: exchange one domain's experts in a bundle; all other parts stay the same by hash.

See :mod:`mmlora.runs.exchange` for which experts can be exchanged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from mmlora.errors import UsageError
from mmlora.records import Record
from mmlora.runs.champions import CHAMPION, replace_champion
from mmlora.runs.exchange import (
    ExchangeReport,
    champion_bundle,
    exchange_report,
    exchanged,
    refuse_strangers,
)
from mmlora.workspace import open_workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwapOutcome(Record):
    """The outcome of a swap.

    Attributes:
        model_version: the composed version, now the champion.
        before: the previous champion.
        champion_of: the domains that it is the champion of; ``all`` if these are all domains.
        exchange: what the exchange changed.
    """

    model_version: str
    before: str
    champion_of: tuple[str, ...]
    exchange: ExchangeReport

    def to_json(self) -> dict[str, object]:
        """Return a flat JSON-serialisable mapping."""
        raw = super().to_json()
        del raw["exchange"]
        return {**raw, **self.exchange.to_json()}


def swap(domain: str, source: str, *, why: str = "swapped by hand") -> SwapOutcome:
    """Replace a domain's experts in its champion by those of another version.

    The composed version becomes champion of every domain that this model is champion of.

    Args:
        domain: the domain whose experts are exchanged.
        source: the version from which the experts are taken.
        why: the reason, stored with the decision.

    Raises:
        UsageError: the domain or version does not exist, there is no champion yet, or the experts are the
            same.
        ContractError: the experts of the two versions have different backbones.
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
    seen = base.manifest.seen_with(target, other.manifest.last_seen(target))
    manifest = replace(exchanged(base.manifest, experts), seen_until=seen)
    version = workspace.bundles.save(manifest)
    reason = f"experts of {domain} as in {source}: {why}"
    following = replace_champion(workspace, base.manifest.model_version, version, CHAMPION, reason)
    for_all = len(following) == len(workspace.expected_domains())
    champion_of = ["all"] if for_all else [str(name) for name in following]
    logger.info("swapped the experts of %s: %s is the champion of %s", domain, version, champion_of)
    report = exchange_report(base, workspace.bundles.load(version), target)
    return SwapOutcome(version, base.manifest.model_version, tuple(champion_of), report)
