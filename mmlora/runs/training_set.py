"""Build training sets: interactions with their features as of their own time, split and encoded.

A training set is named by a fingerprint of its inputs, so it is built again only when they change; data that
arrived after its date doesn't count. Features are streamed into a file, which is reused for training sets of
the same rows. The encoder is fitted in one pass over the file and encodes in another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

import mmlora
from mmlora.errors import DataError
from mmlora.hyperparameters import read_by
from mmlora.runs.built_features import ensure_features, ensure_profiles
from mmlora.runs.contract import check_contract
from mmlora.runs.datasets import feature_views
from mmlora.runs.starting import Start, seen_by
from mmlora.runs.verdicts import verdicts_as_of
from mmlora.schema import (
    DOMAIN_ID,
    EVENT_TIMESTAMP,
    ITEM_ID,
    LABEL,
    USER_ID,
    FeatureContract,
    fingerprint,
    midnight,
)
from mmlora.settings import TrainingSettings
from mmlora.telemetry import note
from mmlora.workspace import Progress, Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.encoding import Encoder
    from mmlora.registry.bundle import Bundle
    from mmlora.training.dataset import EncodedRows, TrainingSet

logger = logging.getLogger(__name__)

ROW_SETTINGS = tuple(name for name in read_by("data") if name not in ("features", "split_file"))
"""The settings that determine a training set, except its features and a file of splits."""
_OF_FEATURES = ("as_of", "code_version", "data", "contract", "activity", "broken", "views")
_OF_ROWS = ("label_maturity_hours", "window_days")
CHUNK_ROWS = 50_000
_RANDOM_FRACTIONS = (0.6, 0.2, 0.2)
_CHRONOLOGICAL_FRACTIONS = (0.8, 0.1, 0.1)


def build_training_set(
    workspace: Workspace,
    as_of: date,
    settings: TrainingSettings,
    progress: Progress,
    *,
    left_out: Sequence[str] | None = None,
    base: Bundle | None = None,
    held_out: bool = True,
    start: Start | None = None,
) -> str:
    """Build the training set of a date, unless it exists, and return its id.

    Its rows are the interactions before ``as_of`` 00:00 UTC with a mature label, as known by then, without
    the domains whose verdict is ``broken``.

    Args:
        workspace: the workspace.
        as_of: the date.
        settings: the settings of features, split and rows.
        progress: called as building advances.
        left_out: domains to leave out; None for those whose verdict is ``broken``.
        base: encode like this bundle, and leave out domains that it wasn't trained on.
        held_out: whether to hold out rows for validation and test, instead of training on all.
        start: what the training begins with; held-out rows that it may have learned from are trained on.

    Raises:
        DataError: no training rows are left.
        ContractError: features of the base are missing.
    """
    from mmlora.training.dataset import TrainingSet

    contract = _contract(workspace, as_of, settings, progress, base)
    note(reads=feature_views(field.view for field in contract.fields))
    broken = _broken(workspace, as_of) if left_out is None else sorted(left_out)
    recipe = _recipe(workspace, as_of, settings, contract, broken)
    if base is not None:
        known = {str(domain) for domain in base.manifest.training_domains}
        strangers = {str(domain) for domain in workspace.expected_domains()} - known
        broken = sorted(strangers.union(broken))
        recipe |= {"encoder": base.manifest.encoder, "broken": broken}
    if not held_out:
        recipe["held_out"] = False
    if start is not None:
        recipe["start"] = start.to_json()
    training_set_id = fingerprint(recipe)[:16]
    folder = workspace.training_set_folder(training_set_id)
    if folder.exists():
        folder.touch()  # marks it as used for `mmlora gc`
        return training_set_id
    rows = read_rows(workspace, as_of, settings, broken)
    split = _split(rows, settings) if held_out else np.zeros(rows.num_rows, np.int8)
    if start is not None:
        split[seen_by(start.bundle(workspace), rows)] = 0
    features = _retrieve(workspace, rows, contract, recipe, progress)
    encoder = base.encoder() if base else _fit(features(), contract, rows, split, settings)
    chunks = _encode(features(), encoder, rows, split, progress)
    TrainingSet.write(folder, chunks, encoder=encoder, fingerprint=recipe["data"], info=recipe)
    logger.info("training set %s: %s rows", training_set_id, f"{rows.num_rows:,}")
    return training_set_id


def rows_and_split(
    workspace: Workspace, as_of: date, settings: TrainingSettings, progress: Progress
) -> tuple[FeatureContract, pa.Table, np.ndarray[Any, np.dtype[np.int8]]]:
    """Return the features, interactions and split of a training set that begins cold."""
    contract = _contract(workspace, as_of, settings, progress)
    rows = read_rows(workspace, as_of, settings, _broken(workspace, as_of))
    return contract, rows, _split(rows, settings)


def _contract(
    workspace: Workspace,
    as_of: date,
    settings: TrainingSettings,
    progress: Progress,
    base: Bundle | None = None,
) -> FeatureContract:
    """Build the features that are missing, and return the contract: the settings' or that of a base."""
    if settings.features == "all":
        ensure_features(workspace, as_of, progress=progress)
    elif settings.features == "profiles":
        ensure_profiles(workspace)  # no activity is read
    if base is not None:
        check_contract(workspace, base)
        return base.contract
    contract = workspace.feature_repo.contract(settings.features)
    return contract if settings.item_history else contract.without_history()


def _broken(workspace: Workspace, as_of: date) -> list[str]:
    return sorted(str(d) for d, v in verdicts_as_of(workspace, as_of).items() if v.verdict == "broken")


def _recipe(
    workspace: Workspace,
    as_of: date,
    settings: TrainingSettings,
    contract: FeatureContract,
    broken: list[str],
) -> dict[str, Any]:
    from mmlora.data.current import fingerprint_known
    from mmlora.training.dataset import FORMAT

    views = workspace.feature_repo.inputs(contract)
    split_file = settings.split_file
    return {
        "as_of": as_of.isoformat(),
        "code_version": mmlora.__version__,
        "layout": FORMAT,
        "data": fingerprint_known(workspace.offline, midnight(as_of)),
        "contract": contract.hash,
        "activity": workspace.feature_repo.built if settings.features == "all" else None,
        "broken": broken,
        "split_file": fingerprint(split_file.read_bytes().hex()) if split_file else None,
        **({"views": views} if views else {}),
        **settings.as_kept(only=ROW_SETTINGS),
    }


def read_rows(
    workspace: Workspace, as_of: date, settings: TrainingSettings, broken: Sequence[str] = ()
) -> pa.Table:
    """Return the interactions of a training set in its order; raise ``DataError`` if there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.data.current import read_current

    cutoff = midnight(as_of)
    matured: datetime = cutoff - timedelta(hours=settings.label_maturity_hours)
    since = cutoff - timedelta(days=settings.window_days) if settings.window_days else None
    rows = read_current(workspace.offline, known_as_of=cutoff, before=matured, since=since)
    if broken:
        names = pc.cast(rows[DOMAIN_ID], pa.string())
        rows = rows.filter(pc.invert(pc.is_in(names, value_set=pa.array(broken))))
    if not rows.num_rows:
        raise DataError(
            "training set",
            f"no interactions before {matured:%Y-%m-%d %H:%M} UTC are fit to train on "
            f"(broken domains: {', '.join(broken) or 'none'}): import data, or train as of a later day",
        )
    return rows


def rows_of(workspace: Workspace, data: TrainingSet) -> pa.Table:
    """Return the interactions of an existing training set in its order, as known now."""
    info = data.manifest.info
    settings = TrainingSettings(**{name: info[name] for name in _OF_ROWS})
    return read_rows(workspace, date.fromisoformat(info["as_of"]), settings, info["broken"])


def _split(rows: pa.Table, settings: TrainingSettings) -> np.ndarray[Any, np.dtype[np.int8]]:
    from mmlora.training.splits import split_rows

    default = _RANDOM_FRACTIONS if settings.split == "random" else _CHRONOLOGICAL_FRACTIONS
    return split_rows(
        settings.split,
        user=rows[USER_ID],
        item=rows[ITEM_ID],
        domain=rows[DOMAIN_ID],
        event_timestamp=rows[EVENT_TIMESTAMP],
        label=rows[LABEL],
        seed=settings.seed,
        fractions=settings.split_fractions or default,
        file=settings.split_file,
    )


def _retrieve(
    workspace: Workspace,
    rows: pa.Table,
    contract: FeatureContract,
    recipe: Mapping[str, object],
    progress: Progress,
) -> Callable[[], Iterator[pa.Table]]:
    """Return a function that yields the rows' features in chunks, each time it is called."""
    from mmlora.runs.retrieved import open_retrieved

    entities = rows.select([USER_ID, ITEM_ID, DOMAIN_ID, EVENT_TIMESTAMP])

    def read() -> Iterator[pa.Table]:
        done = 0
        for table in workspace.feature_repo.stream(entities, contract, rows=CHUNK_ROWS):
            done += table.num_rows
            progress("retrieve features", done, rows.num_rows)
            yield table

    if not any(field.view for field in contract.fields):
        return read
    name = fingerprint({key: recipe.get(key) for key in (*_OF_FEATURES, *_OF_ROWS)})[:16]
    strings = [
        field.name for field in contract.fields if field.dtype == "STRING" and field.kind == "categorical"
    ]
    return open_retrieved(workspace.home / "training_sets" / ".features", name, read, strings)


def _fit(
    features: Iterator[pa.Table],
    contract: FeatureContract,
    rows: pa.Table,
    split: np.ndarray[Any, np.dtype[np.int8]],
    settings: TrainingSettings,
) -> Encoder:
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.encoding import Encoder
    from mmlora.encoding.history import fit_history

    def training_rows() -> Iterator[pa.Table]:
        start = 0
        for table in features:
            yield table.filter(pa.array(split[start : start + table.num_rows] == 0))
            start += table.num_rows

    domains = pc.unique(rows[DOMAIN_ID]).to_pylist()
    history = None
    if any(field.kind == "history" for field in contract.fields):
        history = fit_history(rows.filter(pa.array(split == 0)))
    return Encoder.fit(
        contract, training_rows(), domains=domains, min_count=settings.min_count, history=history
    )


def _encode(
    features: Iterator[pa.Table],
    encoder: Encoder,
    rows: pa.Table,
    split: np.ndarray[Any, np.dtype[np.int8]],
    progress: Progress,
) -> Iterator[EncodedRows]:
    from mmlora.training.dataset import EncodedRows, user_codes

    users, labels, start = user_codes(rows[USER_ID]), rows[LABEL].to_numpy(), 0
    for table in features:
        chosen = slice(start, start + table.num_rows)
        columns = encoder.encode(_without_histories(table, encoder.contract, split[chosen] == 0))
        yield EncodedRows(columns, labels[chosen], split[chosen], users[chosen])
        start += table.num_rows
        progress("encode", start, rows.num_rows)


def _without_histories(
    table: pa.Table, contract: FeatureContract, training: np.ndarray[Any, np.dtype[np.bool_]]
) -> pa.Table:
    """Remove item histories from training rows, because their factors were fitted on these labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, name in enumerate(table.column_names):
        if any(field.name == name and field.kind in ("history", "counts") for field in contract.fields):
            masked = pc.if_else(pa.array(training), pa.scalar(None, table[name].type), table[name])
            table = table.set_column(index, name, masked)
    return table
