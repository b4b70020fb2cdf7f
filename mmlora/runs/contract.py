"""Check that the feature store still has the features that a bundle was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlora.errors import ContractError
from mmlora.names import FeatureGroup
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle


def feature_group(bundle: Bundle) -> FeatureGroup:
    """Return the group of features that a bundle reads; ``ids`` if its service no longer exists."""
    from mmlora.features.repo import SERVICES

    groups = {service: group for group, service in SERVICES.items()}
    return groups.get(bundle.contract.service, "ids")


def check_contract(workspace: Workspace, bundle: Bundle) -> None:
    """Reject a model whose features can no longer be read as in training.

    The bundle has its own encoding; features added since are used by the next training.

    Raises:
        ContractError: features are missing, or have other types or keys; the first are named.
    """
    types = workspace.feature_repo.types(bundle.contract)
    changed = [f.name for f in bundle.contract.fields if types.get(f.name) != (f.dtype, f.keys)]
    if not changed:
        return
    raise ContractError(
        f"model {bundle.manifest.model_version} was trained on features that are gone or of another type "
        f"({', '.join(changed[:8])}): train again, or restore the definitions",
        expected=bundle.contract.hash,
        found=", ".join(changed),
    )
