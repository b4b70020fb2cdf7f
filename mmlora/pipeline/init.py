"""``mmlora init`` and ``mmlora migrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import tomlkit
from pydantic.fields import FieldInfo

from mmlora.files import write_atomically
from mmlora.hyperparameters.setting import Setting
from mmlora.settings import Settings
from mmlora.workspace import open_workspace

_HEADER = (
    "# mmlora's settings. A line with a # shows the default, or an example where there is none. Remove\n"
    "# the # to change it, and leave the [sections] as they are. Variables MMLORA_* override this file.\n"
)
_EXAMPLES: dict[type, object] = {bool: True, int: 1, float: 0.5, Path: "FILE", str: ""}


def init_workspace() -> dict[str, Any]:
    """Create the workspace's folder, and an ``mmlora.toml`` with every setting unless it exists."""
    workspace = open_workspace()
    path = Path("mmlora.toml")
    if not path.exists():
        write_atomically(path, _HEADER + "\n".join(_commented(Settings.model_construct())) + "\n")
    return {"home": str(workspace.home), "settings": str(path.resolve())}


def _commented(settings: Settings) -> list[str]:
    lines: list[str] = []
    sections: list[str] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if hasattr(value, "model_dump"):
            sections += ["", f"[{name}]"]
            for key, sub in type(value).model_fields.items():
                sections.append(_line(key, getattr(value, key), sub))
        else:
            lines.append(_line(name, value, field))
    return lines + sections


def _line(name: str, value: object, field: FieldInfo) -> str:
    declared = next((part for part in field.metadata if isinstance(part, Setting)), None)
    description = declared.help if declared else field.description
    examples = [declared.example] if declared and declared.example else field.examples
    if value is None:
        description = f"an example, unset by default: {description or 'see docs/settings.md'}"
        value = examples[0] if examples else _example(field.annotation)
    plain = json.loads(json.dumps(value, default=str))  # converts tuples to arrays and paths to texts
    item = tomlkit.inline_table() if plain == {} else tomlkit.item(plain)
    line = tomlkit.document().add(name, item.comment(description) if description else item)
    return f"# {line.as_string().rstrip()}"


def _example(annotation: Any) -> object:
    """Return an example value for a setting that is unset by default."""
    for kind in get_args(annotation) or (annotation,):
        if get_origin(kind) is Annotated:
            return _example(get_args(kind)[0])
        if get_origin(kind) is tuple:
            return tuple(_example(part) for part in get_args(kind) if part is not Ellipsis)
        if kind in _EXAMPLES:
            return _EXAMPLES[kind]
    raise TypeError(f"no example of {annotation}")
