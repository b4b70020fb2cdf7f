from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from mmlora.features.transforms import BUCKETS, days_since, words_of

TIMES = pa.timestamp("us", tz="UTC")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def chunked(*values: object, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values), kind)])


@pytest.mark.parametrize(
    ("column", "written"),
    [
        (
            chunked(datetime(2026, 3, 1, tzinfo=UTC), None, datetime(2026, 3, 3, tzinfo=UTC), kind=TIMES),
            "iso",
        ),
        (chunked(date(2026, 3, 1), None, date(2026, 3, 3)), "iso"),
        (chunked("2026-03-01", "soon", "2026-03-03T00:00:00Z"), "iso"),
        (chunked("2026-03-01T02:00:00+02:00", None, "2026-03-03"), "iso"),
        (chunked("01.03.2026", "", "03.03.2026"), "%d.%m.%Y"),
        (chunked("03/01/2026", "31/31/2026", "03/03/2026"), "%m/%d/%Y"),
        (chunked(20260301, None, 20260303), "%Y%m%d"),
        (chunked(1772323200, 0, 1772496000), "epoch_s"),
        (chunked(1772323200000, None, 1772496000000), "epoch_ms"),
    ],
)
def test_ages_are_as_of_the_row_and_missing_before_birth(column, written):
    found = days_since(column, chunked(NOON, NOON, NOON, kind=TIMES), written)
    assert found.to_pylist() == [1.5, None, None]
    again = days_since(
        column.take([2, 0]), chunked(datetime(2026, 3, 4, tzinfo=UTC), NOON, kind=TIMES), written
    )
    assert again.to_pylist() == [1.0, 1.5]


def test_words_are_hashed_regardless_of_case_and_row_order():
    column = chunked("Red shoes, RED!", None, "", "shoes red", "rød skø", " ".join(map(str, range(99))))
    red, nothing, empty, swapped, danish, long = words_of(column).to_pylist()
    assert len(red) == 2 and set(red) == set(swapped) and nothing is None and empty == []
    assert len(danish) == 2 and len(long) == 32
    assert all(0 <= int(bucket) < BUCKETS for bucket in red + danish + long)
    assert words_of(chunked("red")).to_pylist() == [["911"]], "the same in every version: models hold it"


def test_no_rows_give_no_rows():
    none = pa.chunked_array([pa.array([], pa.string())])
    assert len(words_of(none)) == 0
    assert len(days_since(none, pa.chunked_array([pa.array([], TIMES)]))) == 0
