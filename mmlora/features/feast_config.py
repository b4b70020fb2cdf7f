"""The configuration of the workspace's Feast repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlora.files import write_atomically
from mmlora.redaction import redact

PROJECT = "mmlora"
_REGISTRY_VARIABLE = "${MMLORA_FEAST_REGISTRY_URL}"


def feast_config(registry_url: str, spill: Path) -> dict[str, Any]:
    """Return Feast's configuration.

    Args:
        registry_url: SQLAlchemy URL of the registry.
        spill: folder into which joins may spill.
    """
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": registry_url, "cache_ttl_seconds": 60},
        "offline_store": {
            "type": "mmlora.features.asof.store.AsofOfflineStore",
            "listing": "mmlora.features.built:LISTING",
            "spill_location": str(spill),
        },
        "online_store": None,
        "entity_key_serialization_version": 3,
    }


def write_yaml(folder: Path, registry_url: str, spill: Path) -> None:
    """Write ``feature_store.yaml`` (JSON is YAML) into a folder, unless it exists with the same content.

    It lets Feast's own tools work in the workspace; a copied or moved workspace gets a new file. A registry
    URL with a password isn't written: Feast then reads the environment variable of mmlora's setting.
    """
    url = registry_url if redact(registry_url) == registry_url else _REGISTRY_VARIABLE
    path, text = folder / "feature_store.yaml", json.dumps(feast_config(url, spill), indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    write_atomically(path, text)
