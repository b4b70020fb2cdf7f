"""Whether the feature store still gives what a bundle was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlora.errors import ContractError
from mmlora.names import FeatureGroup
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle


def feature_group(bundle: Bundle) -> FeatureGroup:
    """Return which group of features a bundle reads; ``ids`` for one of a service that is no longer there."""
    from mmlora.features.repo import SERVICES

    groups = {service: group for group, service in SERVICES.items()}
    return groups.get(bundle.contract.service, "ids")


def check_contract(workspace: Workspace, bundle: Bundle) -> None:
    """Refuse a model whose features can no longer be read as they were when it was trained.

    How they are encoded stands in the bundle, and what was added since waits for the next training.

    Raises:
        ContractError: features are gone, or are of another type or keyed otherwise; the first are named.
    """
    known = workspace.feature_repo.types(bundle.contract)
    changed = [f.name for f in bundle.contract.fields if known.get(f.name) != (f.dtype, f.keys)]
    if not changed:
        return
    raise ContractError(
        f"model {bundle.manifest.model_version} was trained on features that are gone or of another type "
        f"({', '.join(changed[:8])}): train again, or restore the definitions",
        expected=bundle.contract.hash,
        found=", ".join(changed),
    )
