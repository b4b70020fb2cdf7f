"""Encoding speed, rows a second of tables with 20 fields: prints a Markdown table.

A mixture, then each kind of field alone, encoded by :meth:`Encoder.encode` on one thread; how much faster two
threads are that take a table each; and the obvious version: pandas, ``map`` over a dictionary for categories
and bags, arithmetic on columns for numbers. Both answers are compared first. The versions take turns, so that
a slow minute of the machine is no one's; the figures are medians. Rows a second are of processor time, which
a busy machine hardly stretches; what two threads gain is of the clock: look at it on a quiet machine only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mmlora.encoding import EncodedColumns, Encoder
from mmlora.encoding.fields import FieldEncoder
from mmlora.encoding.numbers import Standard
from mmlora.encoding.vocabularies import Bag, Vocabulary
from mmlora.schema import FeatureContract, FeatureField, FieldKind

FIELDS = 20
Draw = np.random.Generator
Make = Callable[[Draw, int], pa.Array]


def missing(draw: Draw, values: pa.Array) -> pa.Array:
    """Take away one value in twenty."""
    places = pa.array(np.arange(len(values)), mask=draw.random(len(values)) < 0.05)
    return values.take(places)


def numbers(size: int, *, apart: int = 1) -> Make:
    """Whole numbers of so many values."""
    return lambda draw, rows: missing(draw, pa.array(draw.integers(0, size, rows) * apart))


def texts(size: int) -> Make:
    """Strings of so many values."""
    values = pa.array([f"value-{number:07d}" for number in range(size)])
    return lambda draw, rows: missing(draw, values.take(pa.array(draw.integers(0, size, rows))))


def dictionaries(size: int) -> Make:
    """The same, as a dictionary and codes."""
    return lambda draw, rows: texts(size)(draw, rows).dictionary_encode()


def floats(draw: Draw, rows: int) -> pa.Array:
    """Counts as float32, one in twenty missing."""
    return missing(draw, pa.array(draw.integers(0, 500, rows).astype(np.float32)))


def bags(draw: Draw, rows: int) -> pa.Array:
    """Up to three of thirty strings."""
    ends = np.concatenate([[0], np.cumsum(draw.integers(0, 4, rows))])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), texts(30)(draw, int(ends[-1])))


def vectors(draw: Draw, rows: int) -> pa.Array:
    """Sixteen numbers."""
    values = pa.array(draw.normal(size=rows * 16).astype(np.float32))
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * 16, pa.int32()), values)


PLAIN: tuple[tuple[str, str], ...] = ()
LOG = (("transform", "log1p"),)
Column = tuple[FieldKind, Make, tuple[tuple[str, str], ...]]
KINDS: dict[str, Column] = {
    "integers, 50 values": ("categorical", numbers(50), PLAIN),
    "integers, 100k values": ("categorical", numbers(100_000), PLAIN),
    "integers, 100k values far apart": ("categorical", numbers(100_000, apart=1 << 40), PLAIN),
    "strings, 50 values": ("categorical", texts(50), PLAIN),
    "strings, 100k values": ("categorical", texts(100_000), PLAIN),
    "dictionaries of 50 strings": ("categorical", dictionaries(50), PLAIN),
    "dictionaries of 100k strings": ("categorical", dictionaries(100_000), PLAIN),
    "dense": ("dense", floats, PLAIN),
    "dense, log1p": ("dense", floats, LOG),
    "bags of up to 3": ("bag", bags, PLAIN),
    "vectors of 16": ("vector", vectors, PLAIN),
}
MIXED: dict[str, int] = {
    "strings, 100k values": 1,
    "integers, 100k values": 1,
    "strings, 50 values": 4,
    "integers, 50 values": 3,
    "dense": 4,
    "dense, log1p": 6,
    "bags of up to 3": 1,
}


def obvious(encoder: Encoder) -> Callable[[pd.DataFrame], dict[str, np.ndarray]]:
    """Return how one would encode with pandas in a notebook: a ``map`` or a formula a column."""
    vocabularies = {
        name: {value: index + 2 for index, value in enumerate(values["value"].to_pylist())}
        for name, values in encoder.to_tables().items()
    }

    def encode(frame: pd.DataFrame) -> dict[str, np.ndarray]:
        return {
            name: one(fitted, frame[name], vocabularies.get(name, {}))
            for name, fitted in encoder.fields.items()
        }

    def one(fitted: FieldEncoder, column: pd.Series, known: dict[Any, int]) -> np.ndarray:
        if isinstance(fitted, Vocabulary):
            return column.map(known).fillna(1).where(column.notna(), 0).to_numpy(np.int32)
        if isinstance(fitted, Standard):
            values = (np.log1p(column.clip(lower=0)) if fitted.transform == "log1p" else column).astype(
                "float64"
            )
            standard = ((values - fitted.mean) / fitted.std).fillna(0).clip(-20, 20)
            return standard.to_numpy(np.float32)
        if isinstance(fitted, Bag):
            rows = column.map(lambda bag: [known.get(v, 1) for v in bag if v is not None][: fitted.length])
            return np.array([row + [0] * (fitted.length - len(row)) for row in rows], np.int32)
        return np.stack(column.to_list()).astype(np.float32)

    return encode


def check(encoder: Encoder, ours: EncodedColumns, theirs: dict[str, np.ndarray]) -> None:
    """Refuse to time two versions that answer otherwise."""
    for names, matrix in ((ours.categorical_names, ours.categorical), (ours.dense_names, ours.dense)):
        for place, name in enumerate(names):
            np.testing.assert_allclose(matrix[:, place], theirs[name], atol=1e-5)
    for name, values in (ours.vectors | ours.bags).items():
        np.testing.assert_array_equal(values, theirs[name])


def spent(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that work takes: the processor's and the clock's."""
    began = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - began[0], time.perf_counter() - began[1]


def measure(columns: list[Column], asked: argparse.Namespace) -> tuple[float, float, float]:
    """Return rows a second of ours, what two threads gain, and rows a second of the obvious version."""
    draw = np.random.default_rng(0)
    fields = tuple(FeatureField(f"x{n}", "", ("user_id",), "", c[0], c[2]) for n, c in enumerate(columns))
    makers = zip(fields, columns, strict=True)
    table = pa.table({field.name: make(draw, asked.rows) for field, (_, make, _) in makers})
    encoder = Encoder.fit(FeatureContract("", fields), table, domains=[])
    few = table.slice(0, asked.obvious_rows)
    # Plain strings and objects, as a frame that was read from a file or a query has them.
    frame = few.to_pandas(ignore_metadata=True).apply(
        lambda c: c.astype(object) if isinstance(c.dtype, pd.CategoricalDtype) else c
    )
    encode_frame = obvious(encoder)
    check(encoder, encoder.encode(few), encode_frame(frame))
    one, gained, theirs = [], [], []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(asked.repeats):
            alone = spent(lambda: [encoder.encode(table) for _ in range(2)])
            together = spent(lambda: list(pool.map(encoder.encode, [table, table])))
            one.append(alone[0] / 2)
            gained.append(alone[1] / together[1])
            theirs.append(spent(lambda: encode_frame(frame))[0])
    median = statistics.median
    return asked.rows / median(one), median(gained), len(frame) / median(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=250_000, help="of a table; training sets have 250,000")
    parser.add_argument("--obvious-rows", type=int, default=100_000, help="that the obvious version is given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=["mixed", *KINDS], default=["mixed", *KINDS])
    asked = parser.parse_args()
    machine = f"medians of {asked.repeats}, one thread of {os.cpu_count()} cores"
    print(f"{FIELDS} fields, tables of {asked.rows:,} rows, {machine}\n")
    print("| 20 fields of | million rows/s | pandas | ours / pandas | two threads gain |")
    print("|---|---|---|---|---|")
    for kind in asked.kinds:
        shares = MIXED if kind == "mixed" else {kind: FIELDS}
        columns = [KINDS[name] for name, count in shares.items() for _ in range(count)]
        ours, gained, theirs = measure(columns, asked)
        cells = [kind, f"{ours / 1e6:.2f}", f"{theirs / 1e6:.3f}", f"{ours / theirs:.1f}", f"{gained:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
