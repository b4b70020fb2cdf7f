"""``mmlora init`` and ``mmlora migrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlora.pipeline.workspace import open_workspace
from mmlora.settings import Settings

_HEADER = (
    "# mmlora's settings. Every line shows the default; remove the # to change it. Variables MMLORA_* win.\n"
)


def init_workspace() -> dict[str, Any]:
    """Make the workspace's folder, and, unless there is one, ``mmlora.toml`` with every setting."""
    workspace = open_workspace()
    path = Path("mmlora.toml")
    if not path.exists():
        path.write_text(_HEADER + "\n".join(_commented(Settings())) + "\n", encoding="utf-8")
    return {"home": str(workspace.home), "settings": str(path.resolve())}


def _commented(settings: Settings) -> list[str]:
    lines: list[str] = []
    sections: list[str] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if hasattr(value, "model_dump"):
            sections += ["", f"# [{name}]"]
            for key, sub in type(value).model_fields.items():
                sections.append(_line(key, getattr(value, key), sub.description))
        else:
            lines.append(_line(name, value, field.description))
    return lines + sections


def _line(name: str, value: object, description: str | None) -> str:
    if value is None:
        return f"# {name} is unset: {description or 'see docs/settings.md'}"
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, int | float):
        text = repr(value)
    elif isinstance(value, dict):
        text = "{}"
    elif isinstance(value, tuple):
        text = "[" + ", ".join(repr(part).replace("'", '"') for part in value) + "]"
    else:
        text = f'"{value}"'
    return f"# {name} = {text}" + (f"  # {description}" if description else "")


def migrate_warehouse() -> dict[str, Any]:
    """Bring the warehouse up to this version's tables and views."""
    from mmlora.warehouse.migrate import newest_revision
    from mmlora.warehouse.warehouse import Warehouse

    workspace = open_workspace()
    Warehouse.migrate(workspace.warehouse_url, ids=workspace.ids_or_none).close()
    return {"url": workspace.warehouse_url, "revision": newest_revision()}
