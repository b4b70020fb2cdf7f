"""Read an experiment's TOML file into its cells; all faults of the file are reported in one error.

::

    title = "..."
    description = "..."
    [data.gender]                 # one or more data sets, see source.py
    source = "movielens"
    domain_by = "gender"
    [grid]                        # or several [[grids]]; every combination is a cell
    backbone = ["wdl", "dcn"]
    arm = ["pooled_domain", "mlora", "moe_mlora"]
    seed = [0, 1, 2]
    [grid.settings]               # further axes: training settings by name
    rank = [4, 8]
    [settings]                    # training settings that are the same for all cells
    embedding_dim = 8

A file of ``mmlora experiment tune`` has a ``[tune]`` table (see space.py) and needs no grid.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmlora.errors import UsageError
from mmlora.experiments.arms import ARMS, PLACEBO_FAULT
from mmlora.experiments.cell import Cell
from mmlora.experiments.grid import SETTINGS, check_names, read_cells
from mmlora.experiments.source import Source, read_source
from mmlora.experiments.space import Tuning, read_tuning
from mmlora.experiments.tables import File, read_valid
from mmlora.schema import fingerprint
from mmlora.setting_faults import faults_of
from mmlora.settings import TrainingSettings, load_settings
from mmlora.training import TRAINING_REVISION


@dataclass(frozen=True)
class Experiment:
    """A valid experiment file.

    Attributes:
        name: stem of the file, which names the experiment's folder and its experiment in MLflow.
        title: title of the report.
        description: description in the report.
        sources: the data sets by name.
        settings: training settings of all cells.
        cells: distinct cells, sorted by seed.
        tuning: the ``[tune]`` table, see space.py.
    """

    name: str
    title: str
    description: str
    sources: Mapping[str, Source]
    settings: Mapping[str, Any]
    cells: tuple[Cell, ...]
    tuning: Tuning | None = None

    def training_settings(self, cell: Cell) -> TrainingSettings:
        """Return a cell's training settings, including the seed and the split."""
        return _training_settings(cell, self.settings, self.sources[cell.data])

    def definition(self, cell: Cell) -> Mapping[str, Any]:
        """Return everything that determines a cell's data."""
        return self.sources[cell.data].definition(cell.settings)

    def key(self, cell: Cell) -> str:
        """Return the name of a cell's folder, which follows from everything that determines its result.

        This is the file, the defaults of settings that it does not have, and the training code.
        """
        key = {
            **cell.to_json(),
            "data": self.definition(cell),
            "training": self.training_settings(cell).as_kept(),
            "activity": load_settings().features.model_dump() if cell.features == "all" else None,
            "training_revision": TRAINING_REVISION,
        }
        return fingerprint(key)[:16]


def read_experiment(file: Path) -> Experiment:
    """Read an experiment's file.

    Raises:
        UsageError: the file does not exist, is not TOML, or has unknown, missing or invalid values; the
            message lists every fault and what is valid.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; give the experiment's TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}") from None
    faults: list[str] = []
    tables = read_valid(File, raw, faults)
    if not tables.data:
        faults.append('there is no data: give a table such as [data.gender] with source = "movielens"')
    sources = {
        name: source
        for name, table in tables.data.items()
        if (source := read_source(name, table, faults)) is not None
    }
    check_names("[settings] ", tables.settings, SETTINGS, faults)
    cells = read_cells(tables, sources, faults)
    tuning = read_tuning(tables, sources, faults)
    if not faults:
        faults = _setting_faults((*cells, *(tuning.probes() if tuning else ())), tables.settings, sources)
    if faults:
        raise UsageError(f"{file}:\n  " + "\n  ".join(dict.fromkeys(faults)))
    return Experiment(
        name=file.stem,
        title=tables.title or file.stem,
        description=tables.description,
        sources=sources,
        settings=tables.settings,
        cells=cells,
        tuning=tuning,
    )


def _setting_faults(
    cells: tuple[Cell, ...], settings: Mapping[str, Any], sources: Mapping[str, Source]
) -> list[str]:
    """Return the faults of the cells' settings, as settings and as the specification of a small model."""
    from mmlora.models.spec import FieldShape, ModelSpec

    faults: list[str] = []
    shapes = set(ModelSpec.__dataclass_fields__) & set(TrainingSettings.model_fields)
    for cell in cells:
        try:
            chosen = _training_settings(cell, settings, sources[cell.data])
            shape = {name: getattr(chosen, name) for name in shapes}
            ModelSpec(fields=(FieldShape("user_id", "categorical", 3),), num_domains=1, **shape)
            if chosen.start != "cold":
                faults.append(f"start {chosen.start}: cells are trained from scratch; leave it out")
            if chosen.crosses and ARMS[cell.arm].placebo:
                faults.append(f"arm {cell.arm} with crosses true: {PLACEBO_FAULT}")
        except ValidationError as error:
            faults += [f"settings: {fault}" for fault in faults_of(error)]
        except UsageError as error:
            faults.append(str(error))
        if cell.split == "random" and cell.features == "all":
            faults.append(
                "features all with the split random: activity features carry test labels into training rows; "
                "use the split time or user, or the features ids or profiles"
            )
    return faults


def _training_settings(cell: Cell, fixed: Mapping[str, Any], source: Source) -> TrainingSettings:
    own = {name: value for name, value in cell.settings.items() if not source.is_dial(name)}
    return TrainingSettings(
        **{
            **fixed,
            **own,
            "backbone": cell.backbone,
            "adaptation": ARMS[cell.arm].adaptation,
            "features": cell.features,
            "split": cell.split,
            "seed": cell.seed,
            "experts_per_domain": max(cell.experts_per_domain, 1),
            "gate": cell.gate or "domain",
        }
    )
