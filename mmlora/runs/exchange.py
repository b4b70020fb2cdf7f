"""Exchange one domain's experts in a bundle; all other parts stay the same by hash.

Experts work only with the backbone that they were trained on, so they can be moved only between versions that
share it. The gate stays and mixes the new experts like the old ones; the report names the other domains
affected.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmlora.errors import ContractError, UsageError
from mmlora.records import Record
from mmlora.runs.champions import bundle_of
from mmlora.schema import Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle, ExpertPart, Manifest
    from mmlora.registry.manifest import TrainingFacts

logger = logging.getLogger(__name__)


# Parts of the specification on which the meaning of an expert's tensors depends.
_SHARED_SPEC = ("backbone", "fields", "num_domains", "embedding_dim", "hidden_units", "rank", "alpha")


_LEAST_WEIGHT = 1e-6  # smaller weights change a score less than rounding


def champion_bundle(workspace: Workspace, domain: Id | None) -> Bundle:
    """Return the model that scores a domain (None: all) now; raise ``UsageError`` when there is none."""
    with workspace.open_warehouse() as warehouse:
        return bundle_of(workspace, warehouse, domain, None)


def exchanged(base: Manifest, experts: Sequence[ExpertPart], facts: TrainingFacts | None = None) -> Manifest:
    """Return a base's manifest with experts of another model, and with the facts of their training if given.

    What the base's manifest says of its quality is removed, because it is said of another model.

    Raises:
        ContractError: the base doesn't have one of the experts.
    """
    manifest = base
    for expert in experts:
        manifest = manifest.with_expert(*expert)
    none: dict[str, Any] = dict.fromkeys(("judgement", "tuning", "judged", "seen_until"))
    manifest = replace(manifest, base=base.model_version, metrics={}, **none)
    return manifest if facts is None else replace(manifest, **facts)


def refuse_without_experts(base: Bundle, domain: Id) -> None:
    """Reject a domain without an expert in a model, whose gate has no slot for one (``UsageError``)."""
    known = list(dict.fromkeys(str(expert.domain) for expert in base.manifest.experts))
    if str(domain) not in known:
        raise UsageError(
            f"model {base.manifest.model_version} has no expert of {domain} to exchange, but of: "
            f"{', '.join(known) or 'none'}; mmlora share --domain {domain} gives it one where that helps"
        )


def refuse_strangers(base: Bundle, source: Bundle, domain: Id) -> None:
    """Reject experts that were trained on a different backbone than the base's.

    Raises:
        UsageError: one of the two bundles has no expert of the domain.
        ContractError: their backbones, encoders or shapes differ.
    """
    refuse_without_experts(base, domain)
    refuse_without_experts(source, domain)
    ours, theirs = (_foundation(bundle.manifest, domain) for bundle in (base, source))
    differing = [name for name in ours if ours[name] != theirs[name]]
    if differing:
        names = base.manifest.model_version, source.manifest.model_version
        details = "; ".join(f"{name}: {_short(ours[name])} and {_short(theirs[name])}" for name in differing)
        raise ContractError(
            f"experts of {domain} can't go from {names[1]} into {names[0]}, because they were trained on "
            f"something else ({details}): promote {names[1]} for the domain, or train the experts on this "
            f"base (mmlora train experts --domain {domain} --base {names[0]})",
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
    """A domain whose gate gives weight to another domain's experts.

    Attributes:
        domain: the domain.
        weight: total weight of those experts; the mean over layers with their own gates.
    """

    domain: str
    weight: float


@dataclass(frozen=True)
class ExchangeReport(Record):
    """The effects of an exchange of a domain's experts.

    Attributes:
        domain: the domain.
        exchanged: the exchanged parts by role.
        same_parts: the roles of the unchanged parts.
        same_by_hash: the domains whose parts, and therefore scores, are all unchanged.
        shared_with: the other domains affected; see :func:`shared_through_gate`.
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
    """Return the other domains whose gate gives weight to a domain's experts, by descending weight.

    Returns:
        The domains with a weight of ``1e-6`` or more; empty under ``mlora``, where each domain uses only its
        own experts. None if the gate's input includes the row, so that weights differ by row.
    """
    manifest = bundle.manifest
    if manifest.spec["adaptation"] != "moe_mlora":
        return ()
    model = bundle.model()
    experts = [number for number, expert in enumerate(manifest.experts) if expert.domain == domain]
    shares = []
    for other in manifest.training_domains:
        if other == domain or manifest.mixture_of(other) is not None:  # the gate doesn't apply to that
            continue
        weights = bundle.gate_weights(other, model)
        if weights is None:
            return None
        if (weight := sum(weights[number] for number in experts)) >= _LEAST_WEIGHT:
            shares.append(Sharer(str(other), weight))
    return tuple(sorted(shares, key=lambda sharer: -sharer.weight))
