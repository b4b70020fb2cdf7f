"""``mmlora share``: give domains without an expert those of similar domains, or one of their own.

See :mod:`mmlora.runs.sharing` for how it is decided. No other domain's parts change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from mmlora.errors import MmloraError, UsageError
from mmlora.names import ExpertPolicy
from mmlora.records import Record
from mmlora.registry.manifest import Mixture
from mmlora.runs.champions import CHAMPION, bundle_of, champions_of, decide
from mmlora.runs.sharing import Undecided, kept_experts, share
from mmlora.schema import Id
from mmlora.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedDomain(Record):
    """What was decided for a domain.

    Attributes:
        domain_id: the domain.
        policy: whether its scores depend on its own experts, on those of others, or on the backbone alone;
            None if nothing could be decided.
        experts: the weight of each domain's experts in them.
        rows: number of rows that decided.
        gain: what was gained in auc, with the bounds of its interval; None if nothing was measured.
        reason: why, in a clause.
        model_version: the domain's champion now.
        before: its champion before.
        exit_code: the command line's exit status for the error that left it undecided; 0 without one.
    """

    domain_id: str
    policy: ExpertPolicy | None
    experts: Mapping[str, float]
    rows: int
    gain: tuple[float, float, float] | None
    reason: str
    model_version: str
    before: str
    exit_code: int = 0


def share_experts(
    as_of: date, *, domains: Sequence[str] = (), dry_run: bool = False
) -> tuple[SharedDomain, ...]:
    """Choose the experts of domains whose champion has none of their own.

    The version composed for a domain becomes the champion of that domain only, if its scores would change.

    Args:
        as_of: decide by what was known at this day's 00:00 UTC.
        domains: these domains; by default all without an expert of their own that are new to their champion,
            or whose champion has experts, and whose rows have grown since they were decided last. Then an
            error affects only its own domain.
        dry_run: decide, but leave the champions as they are.

    Raises:
        UsageError: a given domain doesn't exist, has no champion or an expert of its own, or has a model
            without any.
        ContractError: the model of a given domain is damaged, or its features are no longer available.
    """
    workspace = open_workspace()
    chosen = [workspace.domain(name) for name in domains]
    with workspace.open_warehouse():
        return tuple(_shared(workspace, as_of, chosen, dry_run))


def _shared(workspace: Workspace, as_of: date, chosen: Sequence[Id], dry_run: bool) -> Iterator[SharedDomain]:
    champions = {} if chosen else champions_of(workspace)
    for domain in chosen or champions:
        try:
            outcome = _of_domain(workspace, as_of, domain, dry_run, chosen=bool(chosen))
        except MmloraError as error:
            if chosen:
                raise
            logger.warning("%s: nothing could be decided: %s", domain, error)
            champion = champions[domain]
            outcome = SharedDomain(
                str(domain), None, {}, 0, None, str(error), champion, champion, error.exit_code
            )
        if outcome is not None:
            yield outcome


def _of_domain(
    workspace: Workspace, as_of: date, domain: Id, dry_run: bool, *, chosen: bool
) -> SharedDomain | None:
    """Decide for a domain; None if there is nothing to decide, which for a chosen one is an error."""
    with workspace.open_warehouse() as warehouse:
        base = bundle_of(workspace, warehouse, domain, None)
    experts = kept_experts(base)
    known = domain in base.manifest.training_domains
    if not experts and (known or base.manifest.spec["backbone"] == "gbdt"):
        if chosen:
            raise UsageError(
                f"model {base.manifest.model_version} has no expert to share: train one with the adaptation "
                f"mlora or moe_mlora, and with domains that differ"
            )
        return None  # a new domain can still be given a shift of its own
    if any(expert.domain == domain for expert, _ in experts):
        if chosen:
            raise UsageError(
                f"domain {str(domain)!r} has an expert of its own in {base.manifest.model_version}: to "
                f"train it again, use mmlora train experts --domain {domain} --base champion"
            )
        return None
    return _decided(workspace, base, domain, share(workspace, base, domain, as_of, again=chosen), dry_run)


def _decided(
    workspace: Workspace, base: Bundle, domain: Id, choice: Mixture | Undecided, dry_run: bool
) -> SharedDomain:
    """Make a mixture the domain's champion if it changes its scores, and say what the domain has then."""
    before = version = base.manifest.model_version
    after = base
    if isinstance(choice, Mixture) and _changes(base, choice):
        if choice.experts or domain not in base.manifest.training_domains:
            manifest = base.manifest.with_mixture(choice)
        else:
            manifest = base.manifest.without_mixture(domain)
        # The figures of the base are of other scores in this domain.
        manifest = replace(manifest, base=before, metrics={}, judgement=None, tuning=None)
        after = replace(base, manifest=manifest)
        if not dry_run:
            version = workspace.bundles.save(manifest)
            why = f"{choice.kind} experts of {domain}: {choice.reason}"
            decide(workspace, version, domain=domain, alias=CHAMPION, why=why, metrics={})
    use = after.experts_of(domain, after.model_of(domain))
    logger.info("%s: %s (%s)", domain, use, choice.reason)
    return SharedDomain(
        domain_id=str(domain),
        policy=use.policy,
        experts=use.weights,
        rows=choice.rows,
        gain=choice.gain if isinstance(choice, Mixture) else None,
        reason=choice.reason,
        model_version=version,
        before=before,
    )


def _changes(base: Bundle, mixture: Mixture) -> bool:
    """Return whether a mixture differs from what the domain has, in its experts or its shift."""
    before = base.manifest.mixture_of(mixture.domain)
    if before is not None:
        return (before.experts, before.shift) != (mixture.experts, mixture.shift)
    return bool(mixture.experts) or mixture.domain not in base.manifest.training_domains
