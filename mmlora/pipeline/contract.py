"""Whether a bundle's features are still what the feature store gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlora.errors import ContractError
from mmlora.names import FeatureGroup
from mmlora.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle


def feature_group(bundle: Bundle) -> FeatureGroup:
    """Return which group of features a bundle reads; ``ids`` for one of a service that is no longer there."""
    from mmlora.features.repo import SERVICES

    groups = {service: group for group, service in SERVICES.items()}
    return groups.get(bundle.contract.service, "ids")


def check_contract(workspace: Workspace, bundle: Bundle) -> None:
    """Refuse a model whose features are no longer what it was trained on.

    Raises:
        ContractError: they differ; the first of them are named.
    """
    found = workspace.feature_repo.contract(feature_group(bundle))
    if found.hash == bundle.contract.hash:
        return
    ours, theirs = {f.name: f for f in bundle.contract.fields}, {f.name: f for f in found.fields}
    changed = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    raise ContractError(
        f"model {bundle.manifest.model_version} was trained on other features than there are now "
        f"(changed: {', '.join(changed[:8]) or 'their order'}): train again, or restore the definitions",
        expected=bundle.contract.hash,
        found=found.hash,
    )
