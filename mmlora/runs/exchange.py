"""One domain's experts exchanged in a bundle, and every other part the same by hash.

Experts fit the backbone that they were trained on, and no other; so they go from one version to another
only where both share it. The gate is a part that stays, and mixes the new experts as it did the old: which
domains that reaches is said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmlora.errors import ContractError, UsageError
from mmlora.records import Record
from mmlora.runs.champions import CHAMPION
from mmlora.schema import Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle, ExpertPart, Manifest

logger = logging.getLogger(__name__)


# What an expert's tensors mean depends on these, as it does on the backbone's own.
_SHARED_SPEC = ("backbone", "fields", "num_domains", "embedding_dim", "hidden_units", "rank", "alpha")


_LEAST_WEIGHT = 1e-6  # what is below moves a score less than rounding does


def champion_bundle(workspace: Workspace, domain: Id) -> Bundle:
    """Return the model that scores a domain now (``UsageError`` when there is none)."""
    with workspace.open_warehouse() as warehouse:
        version = warehouse.current(CHAMPION, domain)
    if version is None:
        raise UsageError("there is no champion yet: train a model first (mmlora train --help)")
    return workspace.bundles.load(version)


def exchanged(base: Manifest, experts: Sequence[ExpertPart], **changes: Any) -> Manifest:
    """Return a base's manifest with these experts in the place of its own, and other facts as given.

    Metrics and judgement are the caller's to give: the base's are of another model.

    Raises:
        ContractError: the base has no such expert.
    """
    manifest = base
    for expert in experts:
        manifest = manifest.with_expert(*expert)
    return replace(
        manifest, base=base.model_version, **{"metrics": {}, "judgement": None, "tuning": None, **changes}
    )


def refuse_without_experts(base: Bundle, domain: Id) -> None:
    """Refuse a domain that has no expert in a model: its gate has no place for one (``UsageError``)."""
    held = list(dict.fromkeys(str(expert.domain) for expert in base.manifest.experts))
    if str(domain) not in held:
        raise UsageError(
            f"model {base.manifest.model_version} has no expert of {domain} to exchange, but of: "
            f"{', '.join(held) or 'none'}; train a whole model to give it one"
        )


def refuse_strangers(base: Bundle, source: Bundle, domain: Id) -> None:
    """Refuse experts that were trained on something else than the base is made of.

    Raises:
        UsageError: one of the two has no expert of the domain.
        ContractError: they share no backbone, encoder or shape; both versions are named, and what differs.
    """
    refuse_without_experts(base, domain)
    refuse_without_experts(source, domain)
    ours, theirs = (_foundation(bundle.manifest, domain) for bundle in (base, source))
    differing = [name for name in ours if ours[name] != theirs[name]]
    if differing:
        names = base.manifest.model_version, source.manifest.model_version
        told = "; ".join(f"{name}: {_short(ours[name])} and {_short(theirs[name])}" for name in differing)
        raise ContractError(
            f"experts of {domain} can't go from {names[1]} into {names[0]}, because they were trained on "
            f"something else ({told}): promote {names[1]} for the domain, or train the experts on this base "
            f"(mmlora train experts --domain {domain} --base {names[0]})",
            expected={name: ours[name] for name in differing},
            found={name: theirs[name] for name in differing},
        )


def _foundation(manifest: Manifest, domain: Id) -> dict[str, object]:
    spec = {name: manifest.spec.get(name) for name in _SHARED_SPEC}
    slots = [expert.slot for expert in manifest.experts if expert.domain == domain]
    return {"backbone part": manifest.backbone, "encoder part": manifest.encoder, **spec, "slots": slots}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


@dataclass(frozen=True)
class ExchangedPart(Record):
    """The hashes of a part before and after an exchange."""

    before: str
    after: str


@dataclass(frozen=True)
class Sharer(Record):
    """A domain whose gate gives another domain's experts weight.

    Attributes:
        domain: the domain.
        weight: of all the other's experts together; the mean over gates where each layer has its own.
    """

    domain: str
    weight: float


@dataclass(frozen=True)
class ExchangeReport(Record):
    """What an exchange of a domain's experts changed, what not, and whom it reaches.

    Attributes:
        domain: the domain.
        exchanged: the parts by role.
        same_parts: the roles of all others.
        same_by_hash: the domains whose every part is the same, so that their scores are.
        shared_with: see :func:`shared_through_gate`.
    """

    domain: str
    exchanged: Mapping[str, ExchangedPart]
    same_parts: tuple[str, ...]
    same_by_hash: tuple[str, ...]
    shared_with: tuple[Sharer, ...] | None


def exchange_report(before: Bundle, after: Bundle, domain: Id) -> ExchangeReport:
    """Compare a model before and after an exchange of a domain's experts."""
    old, new = before.manifest, after.manifest
    changed = {
        role: ExchangedPart(part, new.roles[role])
        for role, part in old.roles.items()
        if part != new.roles[role]
    }
    return ExchangeReport(
        domain=str(domain),
        exchanged=changed,
        same_parts=tuple(role for role in old.roles if role not in changed),
        same_by_hash=tuple(str(d) for d in old.training_domains if old.parts_of(d) == new.parts_of(d)),
        shared_with=shared_through_gate(after, domain),
    )


def shared_through_gate(bundle: Bundle, domain: Id) -> tuple[Sharer, ...] | None:
    """Return the other domains whose gate gives a domain's experts weight, and how much, the most first.

    Returns:
        Those with a weight of ``1e-6`` or more; none under ``mlora``, where each domain has its own experts
        only. None where the gate sees the row, so that the weights differ by row and any domain may share.
    """
    from mmlora.models.ctr import CTRModel
    from mmlora.models.folding import domain_weights

    manifest = bundle.manifest
    if manifest.spec["adaptation"] != "moe_mlora":
        return ()
    model = bundle.model()
    assert isinstance(model, CTRModel)  # trees have no gate
    own = [number for number, expert in enumerate(manifest.experts) if expert.domain == domain]
    shares = []
    for index, other in enumerate(manifest.training_domains):
        if other == domain:
            continue
        weights = [domain_weights(gate, index) for gate in model.gates]
        found = [float(layer[own].sum()) for layer in weights if layer is not None]
        if len(found) < len(weights):
            return None
        if (weight := sum(found) / len(found)) >= _LEAST_WEIGHT:
            shares.append(Sharer(str(other), weight))
    return tuple(sorted(shares, key=lambda sharer: -sharer.weight))
