"""A training run's state: what was asked, and what each step left, as one JSON file a step.

A step that finds its file is done; so a run goes on where it was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlora.errors import UsageError
from mmlora.files import read_json, write_atomically


class Run:
    """The folder ``runs/<run_id>``.

    Args:
        folder: where the steps' files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def config(self) -> dict[str, Any]:
        """What was asked: the training set, the date, and every training setting."""
        config = self.result("config")
        if config is None:
            raise UsageError(
                f"there is no training run {self.run_id!r} in {self.folder.parent}: run `mmlora train`"
            )
        return config

    def result(self, step: str) -> dict[str, Any] | None:
        """Return what a step left, or None when it hasn't finished."""
        path = self.folder / f"{step}.json"
        return read_json(path, "delete it, and train again") if path.exists() else None

    def record(self, step: str, result: dict[str, Any]) -> dict[str, Any]:
        """Keep what a step left, in its order, whole or not at all."""
        write_atomically(self.folder / f"{step}.json", json.dumps(result, indent=1, default=str))
        return result

    def steps(self, prefix: str) -> list[dict[str, Any]]:
        """Return what the steps named ``<prefix>*`` left, by name."""
        return [
            read_json(path, "delete it, and train again")
            for path in sorted(self.folder.glob(f"{prefix}*.json"))
        ]
