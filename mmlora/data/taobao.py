"""Taobao's theme click log (Tianchi data set 9716): clicks on theme pages, and vectors of users and items.

::

    theme_click_log.csv    user_id, item_id, theme_id, reach_time (epoch seconds or YYYY-MM-DD HH:MM:SS)
    user_embedding.csv     id, 128 floats separated by spaces
    item_embedding.csv     id, 128 floats separated by spaces

The domain is the theme; the vectors become profiles, which the model reads unchanged. The data set has to
be downloaded by hand from Tianchi, and this reader was tested only on synthetic rows in its format.

The log holds clicks only, so the rest is drawn (:mod:`mmlora.data.negatives`): each theme gets its own rate
of 2 to 5 negatives a click, and each click that many (rounded up or down, evenly over time) from the theme's
items that its user clicks nowhere in the log under that theme, at the click's own time. So a split by time,
by user or at random keeps a theme's label rate in each of its parts. An item may be drawn before its first
click.

What a model of such rows predicts is no CTR. With w the share of a theme's non-clicks that was kept, the
odds are 1/w times too high, and the true CTR is

    ctr = w p / (w p + 1 - p)            (:func:`mmlora.data.negatives.true_probability`)

How often items were really shown isn't in the log. If the theme's overall CTR c is known from elsewhere,
w = ``negatives_per_click`` * c / (1 - c); if all of the theme's items count as shown at each click,
w = ``sampling_rate``. Both names are columns of :attr:`TaobaoData.sampling`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.columns import is_integer_text, to_id
from mmlora.data.faults import FaultList
from mmlora.data.files import read_raw
from mmlora.data.negatives import Negatives, draw_negatives
from mmlora.data.options import ReadOptions
from mmlora.data.times import to_times
from mmlora.duck import in_memory
from mmlora.errors import DataError, UsageError
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, USER_ID, Entity

logger = logging.getLogger(__name__)

LOG, USERS, ITEMS = "theme_click_log.csv", "user_embedding.csv", "item_embedding.csv"
FILES = (LOG, USERS, ITEMS)
COLUMNS = {"user_id": USER_ID, "item_id": ITEM_ID, "theme_id": DOMAIN_ID, "reach_time": EVENT_TIMESTAMP}
WIDTH = 128
NEGATIVES = (2.0, 5.0)
"""Negatives per click: a theme's rate is drawn from this range."""

_NUMBER = r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"
_VECTOR = rf"^\s*{_NUMBER}(\s+{_NUMBER}){{{WIDTH - 1}}}\s*$"
_CLICK_ORDER = f"{EVENT_TIMESTAMP}, {USER_ID}, {ITEM_ID}, {DOMAIN_ID}"


@dataclass(frozen=True)
class TaobaoData:
    """The log as interactions and profiles.

    Attributes:
        interactions: clicks and drawn negatives, in the order of time.
        profiles: ``vector`` of the users and of the items.
        sampling: a row a theme: domain_id, clicks, negatives, negatives_per_click, sampling_rate
            (negatives over all the (click, item) pairs that they were drawn from), short (negatives that the
            theme has too few items for).
        without_vector: clicks left out because their user or item has no vector, as the published
            benchmarks do.
    """

    interactions: pa.Table
    profiles: dict[Entity, pa.Table]
    sampling: pa.Table
    without_vector: int


def read_taobao(path: Path, *, themes: int, seed: int = 0, now: datetime | None = None) -> TaobaoData:
    """Read the largest themes of the log and draw negatives for them.

    Args:
        path: the folder that holds the files.
        themes: how many, by clicks; 10, 20 and 30 in the published benchmarks.
        seed: of the negatives and their rates.
        now: times later than this are faults (default: the clock).

    Raises:
        UsageError: there is no such folder, or ``themes`` is below 1.
        DataError: a file is missing or at fault, with all of its faults, or there are too few themes.
    """
    if themes < 1:
        raise UsageError(f"themes {themes}: give 1 or more; 10, 20 and 30 are usual")
    if not path.is_dir():
        raise UsageError(f"{path}: the folder does not exist; give the one that contains {', '.join(FILES)}")
    if missing := [name for name in FILES if not (path / name).is_file()]:
        raise DataError(
            str(path),
            f"{', '.join(missing)} missing; unpack the data set so that {', '.join(FILES)} lie here",
        )
    raw = _read_log(path / LOG, now or datetime.now(UTC))
    users, items = _read_vectors(path / USERS), _read_vectors(path / ITEMS)
    clicks = _clicks(raw, users, items, themes, str(path / LOG))
    columns = {name: _typed(clicks.table.column(name)) for name in (USER_ID, ITEM_ID, DOMAIN_ID)}
    interactions, sampling = _with_negatives(columns, clicks.table.column(EVENT_TIMESTAMP), seed)
    profiles: dict[Entity, pa.Table] = {
        "user": _profile(USER_ID, columns[USER_ID], users),
        "item": _profile(ITEM_ID, columns[ITEM_ID], items),
    }
    return TaobaoData(interactions, profiles, sampling, clicks.without_vector)


def _read_log(path: Path, now: datetime) -> pa.Table:
    """Return the log with our column names, ids as texts, checked."""
    table = read_raw([path], ReadOptions()).table
    faults = FaultList(table, list(COLUMNS))
    if not table.num_rows:
        faults.add("no rows")
    columns = {}
    for theirs, ours in COLUMNS.items():
        if table.column_names.count(theirs) != 1:
            faults.add(f"expected once; the file has {', '.join(table.column_names)}", theirs)
        elif ours == EVENT_TIMESTAMP:
            columns[ours] = to_times(table.column(theirs), theirs, faults, latest=now)
        else:
            columns[ours] = to_id(table.column(theirs), theirs, faults)
    faults.raise_if_any(str(path))
    return pa.table(columns)


def _read_vectors(path: Path) -> pa.Table:
    """Return ids and vectors as texts, ``id`` and ``vector``, checked."""
    table = read_raw([path], ReadOptions()).table
    names = table.column_names
    if len(names) != 2:
        what = f"{len(names)} columns ({', '.join(names[:4])[:60]}); valid are 2: the id and {WIDTH} floats"
        raise DataError(str(path), f"{what} separated by spaces")
    if len(names[1].split()) == WIDTH:  # no header: what was taken for one is the first row
        first = pa.table([pa.array([name]) for name in names], names=names)
        table = pa.concat_tables([first, table])
    table = table.rename_columns(["id", "vector"])
    faults = FaultList(table, ["id"])
    to_id(table.column("id"), "id", faults)
    wrong = pc.invert(pc.fill_null(pc.match_substring_regex(table.column("vector"), _VECTOR), False))
    faults.add_rows(f"not {WIDTH} numbers separated by spaces", "vector", wrong)
    faults.add_rows("the same id more than once", "id", _repeated(table.column("id")))
    faults.raise_if_any(str(path))
    return table


def _repeated(column: pa.ChunkedArray) -> pa.ChunkedArray:
    counts = pc.value_counts(column)
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return pc.is_in(column, twice)


@dataclass(frozen=True)
class _Clicks:
    table: pa.Table
    without_vector: int


def _clicks(raw: pa.Table, users: pa.Table, items: pa.Table, themes: int, source: str) -> _Clicks:
    """Return the distinct clicks of the largest themes in one canonical order."""
    # The same text must mean the same id in all files, so ids stay texts up to here.
    known = pc.and_(
        pc.is_in(raw.column(USER_ID), users.column("id").combine_chunks()),
        pc.is_in(raw.column(ITEM_ID), items.column("id").combine_chunks()),
    )
    with in_memory() as con:
        con.register("raw", raw.filter(known))
        query = f"""
            WITH clicks AS (SELECT DISTINCT * FROM raw),
            largest AS (
                SELECT {DOMAIN_ID} FROM clicks GROUP BY 1 ORDER BY count(*) DESC, {DOMAIN_ID} LIMIT $themes
            )
            SELECT * FROM clicks SEMI JOIN largest USING ({DOMAIN_ID}) ORDER BY {_CLICK_ORDER}
        """
        table = con.sql(query, params={"themes": themes}).to_arrow_table()
    found = len(pc.unique(table.column(DOMAIN_ID)))
    without = int(pc.sum(pc.invert(known)).as_py())
    if found < themes:
        lost = f" ({without:,} clicks without a user's or an item's vector left out)" if without else ""
        raise DataError(source, f"{found} themes{lost}; ask for that many or fewer, not {themes}")
    logger.info("%d clicks of %d themes; %d without a vector left out", table.num_rows, themes, without)
    return _Clicks(table, without)


def _typed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids as integers when all of them are."""
    return texts.cast(pa.int64()) if pc.all(is_integer_text(texts)).as_py() else texts


def _with_negatives(
    columns: dict[str, pa.ChunkedArray], time: pa.ChunkedArray, seed: int
) -> tuple[pa.Table, pa.Table]:
    """Return the interactions, and how negatives were sampled by theme."""
    code, value = {}, {}
    for name, column in (*columns.items(), (EVENT_TIMESTAMP, time)):
        distinct = pc.unique(column)
        value[name] = distinct.take(pc.sort_indices(distinct))
        code[name] = pc.index_in(column, value[name]).to_numpy().astype(np.int64)
    themes = value[DOMAIN_ID]
    rate = np.random.default_rng([seed, 0]).uniform(*NEGATIVES, len(themes))
    user, item, theme, moment = (code[n] for n in (USER_ID, ITEM_ID, DOMAIN_ID, EVENT_TIMESTAMP))
    drawn = draw_negatives(user, item, theme, moment, rate, seed=seed)
    rows = np.concatenate([np.arange(len(user)), drawn.click])
    order = np.argsort(rows, kind="stable")  # a click's negatives come right after it
    all_items = np.concatenate([item, drawn.item])[order]
    rows, label = rows[order], (order < len(user)).astype(np.int8)
    interactions = pa.table(
        {
            USER_ID: value[USER_ID].take(pa.array(user[rows])),
            ITEM_ID: value[ITEM_ID].take(pa.array(all_items)),
            DOMAIN_ID: themes.take(pa.array(theme[rows])),
            EVENT_TIMESTAMP: value[EVENT_TIMESTAMP].take(pa.array(moment[rows])),
            LABEL: label,
        }
    )
    return interactions, _sampling(themes, theme, drawn)


def _sampling(themes: pa.Array, theme: npt.NDArray[np.int64], drawn: Negatives) -> pa.Table:
    clicks = np.bincount(theme)
    negatives = np.bincount(theme[drawn.click], minlength=len(themes))
    pairs = np.bincount(theme, weights=drawn.eligible)
    return pa.table(
        {
            DOMAIN_ID: themes,
            "clicks": clicks,
            "negatives": negatives,
            "negatives_per_click": negatives / clicks,
            "sampling_rate": negatives / np.maximum(pairs, 1),
            "short": np.bincount(theme, weights=drawn.wanted).astype(np.int64) - negatives,
        }
    )


def _profile(key: str, ids: pa.ChunkedArray, vectors: pa.Table) -> pa.Table:
    """Return the vectors of the ids that have interactions."""
    needed = pc.unique(ids.cast(pa.string()))
    kept = vectors.filter(pc.is_in(vectors.column("id"), needed))
    chunks = []
    for chunk in kept.column("vector").chunks:  # texts of all rows at once would be several times as large
        numbers = pc.list_flatten(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(chunk)))
        # float64 first: float32 can't hold what is too small for it, and the cast of texts would refuse.
        flat = numbers.cast(pa.float64()).cast(pa.float32(), safe=False)
        offsets = pa.array(np.arange(len(chunk) + 1) * WIDTH, pa.int32())
        chunks.append(pa.ListArray.from_arrays(offsets, flat))
    vector = pa.chunked_array(chunks, pa.list_(pa.float32()))
    return pa.table({key: kept.column("id").cast(ids.type), "vector": vector})
