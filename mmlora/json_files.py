"""Reading a JSON file of the workspace: one that is broken is named, with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlora.errors import DataError


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: the file.
        remedy: what to do when it is broken, e.g. ``"import the data anew"``.

    Raises:
        DataError: it isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(str(path), f"is broken ({error}): restore it, or {remedy}") from None
