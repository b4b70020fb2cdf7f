"""The model version that scores a domain: decided in the warehouse, mirrored by MLflow's aliases."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmlora.errors import ContractError, UsageError
from mmlora.names import Alias
from mmlora.schema import Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)


CHAMPION: Alias = "champion"
CHALLENGER: Alias = "challenger"
ACCEPTED = "accepted below its best baseline"


def bundle_of(workspace: Workspace, warehouse: Warehouse, domain: Id | None, wanted: str | None) -> Bundle:
    """Open the requested model version, or the champion of a domain (None: of all).

    Raises:
        UsageError: the version does not exist, or there is no champion.
        ContractError: the champion's files are missing.
    """
    version = wanted or warehouse.current(CHAMPION, domain)
    if version is None:
        raise UsageError("there is no champion yet: train a model first (mmlora train --help)")
    if wanted is None and not workspace.bundles.exists(version):
        raise ContractError(
            f"the champion of {'all domains' if domain is None else f'domain {domain!r}'} is {version}, "
            f"which isn't in {workspace.bundles.root}: restore it, or make another the champion (mmlora "
            f"rollback{'' if domain is None else f' --domain {domain}'})",
            expected=version,
        )
    return workspace.bundles.load(version)


@lru_cache(maxsize=1024)
def warn_of_labels(home: str, version: str, as_of: date) -> None:
    """Warn, once per model, that a model was trained on labels of the nights that it scores."""
    logger.warning(
        "model %s was trained on what was known at %s, so it has seen the labels of the nights before that "
        "date: its scores of them are no evidence of its quality",
        version,
        as_of,
    )


def champions_of(workspace: Workspace) -> dict[Id, str]:
    """Return the champion of each domain that has one."""
    with workspace.open_warehouse() as warehouse, warehouse.reads_in_a_row():
        current = {domain: warehouse.current(CHAMPION, domain) for domain in workspace.expected_domains()}
    return {domain: version for domain, version in current.items() if version is not None}


def decide(
    workspace: Workspace,
    model_version: str,
    *,
    domain: Id | None,
    alias: Alias,
    why: str,
    metrics: Mapping[str, float | None],
    goes_back_to: int | None = None,
    evidence: Mapping[str, Any] | None = None,
    who: str | None = None,
) -> None:
    """Append a decision to the warehouse; ``who`` is the user of this machine when None."""
    workspace.push()
    with workspace.open_warehouse() as warehouse:
        warehouse.promote(
            domain,
            model_version,
            alias=alias,
            who=who or getpass.getuser(),
            why=why,
            metrics=metrics,
            goes_back_to=goes_back_to,
            evidence=evidence,
        )


def mirror(workspace: Workspace, model_version: str, alias: Alias) -> None:
    """Mirror a decision for all domains in MLflow, whose aliases don't distinguish domains."""
    workspace.tracking.mirror_alias(model_version, alias, workspace.bundles.path(model_version))


def replace_champion(workspace: Workspace, before: str, version: str, alias: Alias, why: str) -> list[Id]:
    """Give a version that was composed from a champion an alias wherever that is the champion.

    Domains with a champion of their own keep it.

    Returns:
        The domains that the champion scores.
    """
    workspace.push()
    with workspace.open_warehouse() as warehouse:
        replaced = warehouse.replace_champion(
            before,
            version,
            alias=alias,
            domains=workspace.expected_domains(),
            who=getpass.getuser(),
            why=why,
        )
    if None in replaced:
        mirror(workspace, version, alias)
    return [domain for domain in replaced if domain is not None]
