"""Splits: which rows are for training, for early stopping and calibration, and for the final test.

Every split except ``file`` depends only on the rows, not on their order: rows are first sorted into a
canonical order (time, user, item, domain), in which rows with equal keys and labels are interchangeable.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.errors import DataError, Fault, UsageError
from mmlora.schema import EVENT_TIMESTAMP, ITEM_ID, TIMESTAMP, USER_ID, SplitName, valid_names

logger = logging.getLogger(__name__)

_LEAST_ROWS = 10
SPLIT_PARTS = ("train", "validation", "test")
ColumnLike: TypeAlias = pa.Array | pa.ChunkedArray | npt.NDArray[Any]
Codes = npt.NDArray[np.int64]
_KEY = (USER_ID, ITEM_ID, EVENT_TIMESTAMP)
_HAS_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)$"


def split_rows(
    name: SplitName,
    *,
    user: ColumnLike,
    item: ColumnLike,
    domain: ColumnLike,
    event_timestamp: ColumnLike,
    label: ColumnLike,
    seed: int = 0,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    file: Path | None = None,
) -> npt.NDArray[np.int8]:
    """Assign each of N rows to a part: 0 train, 1 validation, 2 test.

    Args:
        name: ``random``: seeded, stratified by label within each domain. ``user``: each user's rows in
            order of time. ``time``: all rows in order of time, with rows of the same time in the same part; a
            domain of 10 rows or more that would be missing from a part is cut by its own time.
            ``file``: read from a file.
        user: user ids, ``[N]``.
        item: item ids, ``[N]``.
        domain: domain ids, ``[N]``.
        event_timestamp: event times, ``[N]``.
        label: labels 0/1, ``[N]``.
        seed: seed of the split ``random``.
        fractions: fractions of train, validation and test; counts are exact up to rounding in each stratum or
            user, or (``time``) up to the rows with the same time.
        file: for ``file``: Parquet or CSV with user_id, item_id, event_timestamp and split (``train``,
            ``validation``, ``test``). Keys that are not among the rows are ignored.

    Raises:
        UsageError: the name or the fractions are wrong, or no file is given.
        DataError: a part that should have rows gets none, or the file is faulty or incomplete.
    """
    _check(name, fractions, file)
    if name == "file" and file is not None:
        parts = _from_file(file, user, item, event_timestamp)
        used = np.ones(3)
    else:
        time = _codes(event_timestamp)
        order = np.lexsort((_codes(label), _codes(domain), _codes(item), _codes(user), time))
        used = np.asarray(fractions)
        if name == "time":
            parts = _by_time(time, order, used)
            _cut_absent_domains(parts, time, order, _codes(domain), used)
        elif name == "user":
            parts = _within(_codes(user), order, used)
        else:
            strata = _codes(domain) * 2 + _codes(label)
            parts = _within(strata, _shuffled(order, seed), used)
    counts = np.bincount(parts, minlength=3)
    empty = [
        part for part, count, share in zip(SPLIT_PARTS, counts, used, strict=True) if share and not count
    ]
    if empty:
        raise DataError(
            f"split {name!r}",
            f"of {len(parts):,} rows none are left for {' and '.join(empty)}: import more data, or choose "
            "another split or other fractions",
        )
    return parts


def _check(name: SplitName, fractions: Sequence[float], file: Path | None) -> None:
    faults = []
    if name not in valid_names(SplitName):
        faults.append(f"{name!r} is unknown: use one of {', '.join(valid_names(SplitName))}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        faults.append(f"fractions are {tuple(fractions)}: give three that sum to 1, the first above 0")
    if (name == "file") != (file is not None):
        faults.append("the split 'file' needs a file of splits, and no other split takes one")
    if faults:
        raise UsageError("split: " + "; ".join(faults))


def _codes(column: ColumnLike) -> Codes:
    """Return integers ``[N]`` that sort and compare as the values do."""
    if isinstance(column, np.ndarray):
        return np.unique(column, return_inverse=True)[1].astype(np.int64)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = array.unique()
    ranks = pc.index_in(array, value_set=values.take(pc.sort_indices(values)))
    codes: Codes = ranks.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _shuffled(order: Codes, seed: int) -> Codes:
    shuffled: Codes = order[np.random.default_rng(seed).permutation(len(order))]
    return shuffled


def _within(group: Codes, order: Codes, fractions: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Cut each group's rows, in the given order, at the cumulative fractions."""
    in_groups = order[np.argsort(group[order], kind="stable")]
    counts = np.bincount(group)
    starts = np.cumsum(counts) - counts
    sorted_group = group[in_groups]
    place = np.arange(len(group)) - starts[sorted_group]
    parts = np.zeros(len(group), np.int8)
    for share in np.cumsum(fractions)[:2]:
        parts[in_groups] += place >= _round(counts * share)[sorted_group]
    return parts


def _round(values: npt.NDArray[np.float64]) -> Codes:
    """Round half up; the small term keeps 0.6 + 0.2 from falling below 0.8."""
    return np.floor(values + 0.5 + 1e-9).astype(np.int64)


def _by_time(time: Codes, order: Codes, fractions: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Cut all rows at the cumulative fractions, each moved to the nearer end of the rows of its time."""
    times = time[order]
    parts = np.zeros(len(time), np.int8)
    for cut in _round(len(times) * np.cumsum(fractions)[:2]):
        if cut >= len(times):
            continue
        first = np.searchsorted(times, times[cut], "left")
        after = np.searchsorted(times, times[cut], "right")
        parts[order[first if cut - first <= after - cut else after :]] += 1
    return parts


def _cut_absent_domains(
    parts: npt.NDArray[np.int8],
    time: Codes,
    order: Codes,
    domain: Codes,
    fractions: npt.NDArray[np.float64],
) -> None:
    """Cut a domain by its own time if the common cuts leave a part without its rows.

    Otherwise a market that opened last week would have nothing to train on, and one that closed nothing to
    test.
    """
    counts = np.zeros((domain.max() + 1, 3), np.int64)
    np.add.at(counts, (domain, parts), 1)
    lacking = ((counts == 0) & (fractions > 0)).any(1) & (counts.sum(1) >= _LEAST_ROWS)
    for number in np.flatnonzero(lacking):
        own = order[domain[order] == number]
        parts[own] = _by_time(time[own], np.arange(len(own)), fractions)
    if lacking.any():
        logger.info(
            "%d domains would have no rows in a part of the split: they are cut by their own time",
            lacking.sum(),
        )


def _from_file(
    file: Path, user: ColumnLike, item: ColumnLike, event_timestamp: ColumnLike
) -> npt.NDArray[np.int8]:
    rows = pa.table({USER_ID: user, ITEM_ID: item, EVENT_TIMESTAMP: event_timestamp})
    rows = rows.set_column(2, EVENT_TIMESTAMP, pc.cast(rows[EVENT_TIMESTAMP], TIMESTAMP))
    parts = _read(file, rows.schema)
    keys = list(_KEY)
    numbered = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    joined = numbered.join(parts, keys=keys, join_type="left outer").sort_by("row")
    lacking = joined.filter(pc.is_null(joined["part"]))
    if lacking.num_rows:
        first = tuple(
            str(tuple(map(str, row.values()))) for row in lacking.select(keys).slice(0, 3).to_pylist()
        )
        raise DataError(
            str(file), [Fault("rows of the data are missing from the file", None, lacking.num_rows, first)]
        )
    unused = parts.num_rows - rows.group_by(keys).aggregate([]).num_rows
    if unused > 0:
        logger.info("%s: %d rows are not in the training data", file, unused)
    codes: npt.NDArray[np.int8] = joined["part"].to_numpy().astype(np.int8)
    return codes


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    """Read the file's keys, cast to the data's types, and the code of each key's part."""
    table = _read_raw(file)
    absent = [name for name in (*_KEY, "split") if name not in table.column_names]
    if absent:
        raise DataError(
            str(file), [Fault(f"the column is missing; the file has {table.column_names}", n) for n in absent]
        )
    columns, faults = {}, []
    for name in _KEY:
        try:
            columns[name] = _conform(table[name], schema.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            faults.append(Fault(str(error), name))
    part = pc.index_in(pc.cast(table["split"], pa.string()), value_set=pa.array(SPLIT_PARTS))
    wrong = np.flatnonzero(np.asarray(pc.is_null(part)))
    if len(wrong):
        first = tuple(f"row {row}: {table['split'][row]}" for row in wrong[:3].tolist())
        faults.append(Fault(f"the split is not one of {', '.join(SPLIT_PARTS)}", "split", len(wrong), first))
    if faults:
        raise DataError(str(file), faults)
    distinct = pa.table({**columns, "part": part}).group_by([*_KEY, "part"]).aggregate([])
    keys = distinct.group_by(list(_KEY)).aggregate([([], "count_all")])
    repeated = keys.filter(pc.greater(keys["count_all"], 1))
    if repeated.num_rows:
        first = tuple(
            str(tuple(map(str, row.values()))) for row in repeated.select(list(_KEY)).slice(0, 3).to_pylist()
        )
        raise DataError(str(file), [Fault("keys are in more than one split", None, repeated.num_rows, first)])
    return distinct


def _read_raw(file: Path) -> pa.Table:
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_table(file)
        names = (*_KEY, "split")
        return pyarrow.csv.read_csv(
            file,
            convert_options=pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in names}),
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(str(file), f"can't be read as Parquet or CSV: {error}") from None


def _conform(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Cast a key to the data's type; times without a zone are UTC."""
    if wanted == TIMESTAMP and pa.types.is_string(column.type):
        zoned = pc.match_substring_regex(column, _HAS_ZONE)
        column = pc.if_else(zoned, column, pc.binary_join_element_wise(column, "Z", ""))
    elif wanted == TIMESTAMP and pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = pc.assume_timezone(column, "UTC")
    return pc.cast(column, wanted)
