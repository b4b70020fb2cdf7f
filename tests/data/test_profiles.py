from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from mmlora.data.profiles import canonical_profile
from mmlora.errors import DataError


def check(**columns: object) -> pa.Table:
    return canonical_profile("user", pa.table({"user_id": [1, 2], **columns}), source="users")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pa.array([3, None], pa.uint8()), "int64", [3, None]),
        (pa.array(["a", "b"]).dictionary_encode(), "string", ["a", "b"]),
        ([True, None], "string", ["true", None]),
        ([0.5, float("nan")], "double", [0.5, None]),
        (pa.array([0.5, None], pa.float32()), "float", [0.5, None]),
        ([Decimal("1.5"), None], "double", [1.5, None]),
        ([date(1970, 1, 3), None], "timestamp[us, tz=UTC]", [datetime(1970, 1, 3, tzinfo=UTC), None]),
        (
            [datetime(1970, 1, 1, 12), None],
            "timestamp[us, tz=UTC]",
            [datetime(1970, 1, 1, 12, tzinfo=UTC), None],
        ),
        ([["a", "b"], []], "list<item: string>", [["a", "b"], []]),
        ([[1.0, 2.0], None], "list<item: float>", [[1.0, 2.0], None]),
        (
            pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
            "list<item: float>",
            [[1.0, 2.0], [3.0, 4.0]],
        ),
        (
            pa.array([["a"], None], pa.large_list(pa.large_string())),
            "list<item: string>",
            [["a"], None],
        ),
        ([None, None], "null", [None, None]),
        ([[1, 0], [2, 3]], "list<item: float>", [[1.0, 0.0], [2.0, 3.0]]),
        ([[1577134800018226901], [2, 3]], "list<item: string>", [["1577134800018226901"], ["2", "3"]]),
        ([[], []], "list<item: string>", [[], []]),
    ],
)
def test_columns_get_feature_types(values: object, kind: str, expected: list[object]) -> None:
    column = check(trait=values).column("trait")
    assert str(column.type) == kind
    assert column.to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "what", "count"),
    [
        ([1.0, float("inf")], "infinite", 1),
        ([[1.0], [1.0, 2.0]], "not the width", 1),
        ([[1.0, float("nan")], [1.0, 2.0]], "null or infinite element", 1),
        ([["a", None], ["b"]], "a null element", 1),
        ([[True], [False]], "cast it to a list of text", 0),
        ([{"a": 1}, {"a": 2}], "can't be a feature", 0),
        ([b"a", b"b"], "can't be a feature", 0),
        (pa.array([2**63, 1], pa.uint64()), "larger than", 0),
    ],
)
def test_values_that_cannot_be_features_are_faults(values: object, what: str, count: int) -> None:
    with pytest.raises(DataError) as caught:
        check(trait=values)
    (fault,) = caught.value.faults
    assert what in fault.what
    assert (fault.column, fault.count) == ("trait", count)


@pytest.mark.parametrize(
    "name", ["item_id", "known_at", "Created_Timestamp", "label", "day", "zip code", "__x", 'a"b']
)
def test_names_that_would_clash_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"reserved name|not a valid feature name"):
        check(**{name: [1, 2]})


def test_names_that_differ_in_capitals_only_are_refused() -> None:
    with pytest.raises(DataError, match="ignoring case"):
        check(age=[1, 2], Age=[1, 2])


def test_a_table_of_ids_alone_is_refused() -> None:
    with pytest.raises(DataError, match="no feature columns"):
        check()


def test_a_key_may_come_again_with_another_time_only() -> None:
    table = pa.table({"user_id": [1, 1], "event_timestamp": ["2020-01-01", "2021-01-01"], "age": [1, 2]})
    assert canonical_profile("user", table, source="users").num_rows == 2
    twice = table.set_column(1, "event_timestamp", pa.array(["2020-01-01", "2020-01-01"]))
    with pytest.raises(DataError, match="more than once") as caught:
        canonical_profile("user", twice, source="users")
    assert caught.value.faults[0].count == 2


def test_vectors_in_several_chunks_quote_the_right_row() -> None:
    chunks = pa.chunked_array([pa.array([[1.0]]), pa.array([[float("inf")]])])
    with pytest.raises(DataError) as caught:
        check(trait=chunks)
    assert caught.value.faults[0].rows[0].startswith("row 2:")
