"""An experiment's data: imported once by the commands of the pipeline, into workspaces of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from mmlora.experiments.cell import Cell
from mmlora.experiments.plan import Experiment
from mmlora.files import locked, write_atomically, write_json
from mmlora.pipeline.data import import_movielens, import_synthetic, import_taobao
from mmlora.runs.training_set import build_training_set, read_rows
from mmlora.schema import EVENT_TIMESTAMP, fingerprint
from mmlora.settings import TrainingSettings, load_settings
from mmlora.workspace import Progress, Workspace, open_workspace

if TYPE_CHECKING:
    from mmlora.training.dataset import TrainingSet


@dataclass(frozen=True)
class PreparedRows:
    """Location of an experiment's training set, as plain values that can be sent to another process.

    Attributes:
        home: home folder of the workspace with the training set.
        training_set_id: id of the training set in that workspace.
        as_of: the date that it was built for.
    """

    home: Path
    training_set_id: str
    as_of: date


def workspace_at(home: Path, threads: int | None = None) -> Workspace:
    """Open a workspace that keeps everything in a folder, with the settings of the current workspace."""
    settings = load_settings(home=home)
    training = settings.training.model_copy(update={"threads": threads or settings.training.threads})
    own = {"warehouse_url": "", "feast_registry_url": "", "shared_url": "", "training": training}
    return open_workspace(settings.model_copy(update=own))


def shared_home(folder: Path) -> Path:
    """Return the folder of the data and trained phases that the experiments beside ``folder`` share."""
    return folder.parent / "shared"


def prepare_rows(experiment: Experiment, cell: Cell, folder: Path, progress: Progress) -> PreparedRows:
    """Make a cell's data and training set unless they exist.

    Raises:
        MmloraError: the data cannot be imported, or there are no rows to train on.
    """
    source, definition = experiment.sources[cell.data], experiment.definition(cell)
    home = folder / source.folder_name(cell.settings)
    workspace = workspace_at(home)
    as_of = _import(workspace, definition)
    settings = experiment.training_settings(cell)
    built = build_training_set(workspace, as_of, settings, progress, left_out=())
    return PreparedRows(home, built, as_of)


def _import(workspace: Workspace, definition: Mapping[str, Any]) -> date:
    """Import the data unless that was done; return the day after its last day."""
    record = workspace.home / "imported.json"
    with locked(workspace.home / ".import.lock"):
        if not record.exists():
            _fill(workspace, definition)
            if definition["source"] == "workspace":
                as_of = definition["as_of"]
            else:
                as_of = max(workspace.store.days()) + timedelta(days=1)
            text = json.dumps({**definition, "as_of": as_of}, indent=1, default=str)
            write_atomically(record, text)
    return date.fromisoformat(json.loads(record.read_text(encoding="utf-8"))["as_of"])


def _fill(workspace: Workspace, definition: Mapping[str, Any]) -> None:
    arguments = {name: value for name, value in definition.items() if name not in ("source", "stored")}
    if "path" in arguments:
        arguments["path"] = Path(arguments["path"])
    match definition["source"]:
        case "movielens":
            import_movielens(**arguments, workspace=workspace)
        case "synthetic":
            import_synthetic(**arguments, workspace=workspace)
        case "taobao":
            import_taobao(**arguments, workspace=workspace)
        case _:
            current = open_workspace()
            current.store.require_import()
            if not workspace.offline.is_symlink():  # a run that was killed may have left it
                workspace.offline.symlink_to(current.offline, target_is_directory=True)


def open_rows(rows: PreparedRows) -> TrainingSet:
    """Open the training set."""
    from mmlora.training.dataset import TrainingSet

    return TrainingSet.open(workspace_at(rows.home).training_set_folder(rows.training_set_id))


def write_test_rows(folder: Path, training_set: TrainingSet) -> str:
    """Write the columns of the test rows and the sizes of their domains; return their ``data_key``.

    Training sets with other features and the same split have the same test rows, and so the same key.
    """
    rows = training_set.rows("test")
    columns: dict[str, npt.NDArray[Any]] = {
        "label": np.asarray(training_set.label[rows], np.int8),
        "domain": np.asarray(training_set.domain[rows], np.int32),
        "user": np.asarray(training_set.user[rows], np.int32),
    }
    domains = _domains(training_set)
    content = {name: values.tobytes().hex() for name, values in columns.items()}
    data_key = fingerprint({**content, "domains": domains})[:16]
    target = folder / "data" / data_key
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / ".lock"):
        if not (target / "domains.json").exists():
            target.mkdir(exist_ok=True)
            for name, values in columns.items():
                np.save(target / f"{name}.npy", values)
            write_json(target / "domains.json", {"domains": domains})  # last, because it marks a whole folder
    return data_key


class DomainSize(TypedDict):
    """A domain in ``domains.json``: its rows, and the positives, users and items of its training rows."""

    name: str
    train_rows: int
    test_rows: int
    positives: int
    users: int
    items: int
    density: float


def _domains(data: TrainingSet) -> list[DomainSize]:
    """Return the name and size of each domain."""
    from mmlora.training.rows import blocks, of_domain

    train, item = data.rows("train"), _item_column(data)
    tested = np.bincount(data.domain[data.rows("test")], minlength=data.num_domains)
    sizes: list[DomainSize] = []
    for index, name in enumerate(data.domains):
        own = of_domain(data, train, index)
        rows, positives, user_codes, item_codes = len(own), 0, np.zeros(0), np.zeros(0)
        for _, block in blocks(own):
            user_codes = np.union1d(user_codes, data.user[block])
            item_codes = np.union1d(item_codes, data.batch(block).categorical[:, item].numpy())
            positives += int(data.label[block].sum())
        users, items = len(user_codes), len(item_codes)
        sizes.append(
            {
                "name": str(name),
                "train_rows": rows,
                "test_rows": int(tested[index]),
                "positives": positives,
                "users": users,
                "items": items,
                "density": rows / (users * items) if rows else 0.0,
            }
        )
    return sizes


def _item_column(data: TrainingSet) -> int:
    names = [field.name for field in data.manifest.contract.fields if field.kind == "categorical"]
    return names.index("item_id")


def true_probability(rows: PreparedRows, training_set: TrainingSet, settings: TrainingSettings) -> Any | None:
    """Return the true click probability of each test row, ``[N]``; None for data that is not synthetic."""
    import pyarrow.parquet as pq

    workspace = workspace_at(rows.home)
    file = workspace.home / "synthetic" / "truth.parquet"
    if not file.exists():
        return None
    truth = pq.read_table(file, columns=[EVENT_TIMESTAMP, "probability"])
    timestamps = read_rows(workspace, rows.as_of, settings)[EVENT_TIMESTAMP].cast("int64").to_numpy()
    # Synthetic rows have distinct timestamps, and the truth is sorted by them.
    index = np.searchsorted(truth[EVENT_TIMESTAMP].cast("int64").to_numpy(), timestamps)
    return truth["probability"].to_numpy()[index][training_set.rows("test")]
