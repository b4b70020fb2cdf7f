"""A training run's state: what was asked, and what each step left, as one JSON file a step.

A step that finds its file is done; so a run goes on where it was stopped.
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
    """What was asked of a training run; its id follows from that.

    Attributes:
        as_of: the run trains on what was known at this day's 00:00 UTC.
        training_set_id: the rows.
        expert_domains: the domains that train experts of their own.
        settings: the training settings; where the run is trained is not among them.
        code_version: of mmlora.
        training_revision: of the training code.
        base: the model version whose parts stay but for one domain's experts; None for a whole model.
    """

    as_of: date
    training_set_id: str
    expert_domains: tuple[str, ...]
    settings: TrainingSettings
    code_version: str
    training_revision: int
    base: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, in one level."""
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
        """Read back what :meth:`to_json` gave; what isn't named is younger than the run."""
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
        folder: where the steps' files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.name

    @property
    def config(self) -> RunConfig:
        """What was asked (``UsageError`` when there is no such run)."""
        self.require()
        return RunConfig.from_json(self.result("config") or {})

    def require(self) -> None:
        """Raise ``UsageError`` when there is no such run."""
        if not (self.folder / "config.json").exists():
            raise UsageError(
                f"there is no training run {self.run_id!r} in {self.folder.parent}: run `mmlora train`"
            )

    def result(self, step: str) -> dict[str, Any] | None:
        """Return what a step left, or None when it hasn't finished."""
        path = self.folder / f"{step}.json"
        return read_json(path, "delete it, and train again") if path.exists() else None

    def record(self, step: str, result: Mapping[str, object]) -> None:
        """Keep what a step left, in its order, whole or not at all."""
        write_atomically(self.folder / f"{step}.json", json.dumps(result, indent=1, default=str))

    def steps(self, prefix: str) -> list[dict[str, Any]]:
        """Return what the steps named ``<prefix>*`` left, by name."""
        return [
            read_json(path, "delete it, and train again")
            for path in sorted(self.folder.glob(f"{prefix}*.json"))
        ]
