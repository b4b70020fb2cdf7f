"""A training run's state: its configuration and the results of its steps, one JSON file per step.

A step whose file exists is done, so a run resumes where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mmlora.errors import UsageError
from mmlora.files import read_json, write_atomically
from mmlora.hyperparameters import SETTINGS
from mmlora.settings import TrainingSettings


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a training run, from which its id is derived.

    Attributes:
        as_of: the run trains on what was known at 00:00 UTC of this day.
        training_set_id: id of the training set.
        expert_domains: the domains that train their own experts.
        settings: the training settings, without those of the machine.
        code_version: version of mmlora.
        training_revision: revision of the training code.
        base: model version all parts of which stay except one domain's experts; None for a whole model.
    """

    as_of: date
    training_set_id: str
    expert_domains: tuple[str, ...]
    settings: TrainingSettings
    code_version: str
    training_revision: int
    base: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return a flat JSON-serialisable mapping."""
        return {
            "as_of": self.as_of.isoformat(),
            "training_set_id": self.training_set_id,
            "expert_domains": list(self.expert_domains),
            "code_version": self.code_version,
            "training_revision": self.training_revision,
            **({"base": self.base} if self.base else {}),
            **self.settings.as_kept(),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RunConfig:
        """Build a configuration from what :meth:`to_json` returned; missing ones are newer than it."""
        known = {"id_dropout": False, "item_history": False, "refit": False, **raw}
        return cls(
            as_of=date.fromisoformat(raw["as_of"]),
            training_set_id=raw["training_set_id"],
            expert_domains=tuple(raw["expert_domains"]),
            settings=TrainingSettings(**{name: known[name] for name in SETTINGS if name in known}),
            code_version=raw["code_version"],
            training_revision=raw["training_revision"],
            base=raw.get("base"),
        )


class Run:
    """The folder ``runs/<run_id>``.

    Args:
        folder: the folder of the steps' files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def config(self) -> RunConfig:
        """The configuration; raises ``UsageError`` if the run does not exist."""
        self.require()
        return RunConfig.from_json(self.result("config") or {})

    def require(self) -> None:
        """Raise ``UsageError`` if the run does not exist."""
        if not (self.folder / "config.json").exists():
            raise UsageError(
                f"there is no training run {self.run_id!r} in {self.folder.parent}: run `mmlora train`"
            )

    def result(self, step: str) -> dict[str, Any] | None:
        """Return a step's result, or None when it hasn't finished."""
        path = self.folder / f"{step}.json"
        return read_json(path, "delete it, and train again") if path.exists() else None

    def record(self, step: str, result: Mapping[str, object]) -> None:
        """Store a step's result atomically, with its keys in order."""
        write_atomically(self.folder / f"{step}.json", json.dumps(result, indent=1, default=str))

    def steps(self, prefix: str) -> list[dict[str, Any]]:
        """Return the results of the steps named ``<prefix>*``, sorted by name."""
        return [
            read_json(path, "delete it, and train again")
            for path in sorted(self.folder.glob(f"{prefix}*.json"))
        ]
