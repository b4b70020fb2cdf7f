"""Where models come from, as the warehouse keeps it for the view ``published_lineage``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmlora.warehouse.models import ModelFacts
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.manifest import Manifest


def facts_of(manifest: Manifest) -> ModelFacts:
    """Return what the warehouse keeps of a model."""
    return ModelFacts(
        model_version=manifest.model_version,
        bundle_hash=manifest.content_hash,
        as_of=manifest.as_of,
        data_fingerprint=manifest.data_fingerprint,
        contract_hash=manifest.contract_hash,
        code_version=manifest.code_version,
        base=manifest.base,
    )


def facts_of_versions(workspace: Workspace, versions: Iterable[str]) -> list[ModelFacts]:
    """Return the facts of those versions whose bundles are there and whole."""
    bundles = workspace.bundles
    return [facts_of(bundles.load(name).manifest) for name in sorted(versions) if bundles.is_whole(name)]
