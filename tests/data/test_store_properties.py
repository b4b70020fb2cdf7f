"""However the same rows come, the store says the same of them."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmlora.data.store import OfflineStore

START = datetime(2024, 1, 1, tzinfo=UTC)
IMPORTED = datetime(2024, 3, 1, tzinfo=UTC)
Key = tuple[object, object, object, str]

hours = st.integers(0, 24 * 6).map(lambda hour: (START + timedelta(hours=hour)).isoformat())
few = st.integers(-2, 2)
texts = st.sampled_from(["1", "é", "a'b", 'q"', " "])


def batches(user: st.SearchStrategy[object], item: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Rows of unique keys, and a way to import them: a number of batches for each row, at least one."""
    row = st.tuples(st.tuples(user, item, few, hours), st.integers(0, 1))
    rows = st.lists(row, min_size=1, max_size=12, unique_by=lambda r: r[0])
    return rows.flatmap(
        lambda rows: st.tuples(
            st.just(rows),
            st.lists(
                st.lists(st.integers(0, 3), min_size=1, max_size=2), min_size=len(rows), max_size=len(rows)
            ),
        )
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(batches(few, texts), batches(texts, few)))
def test_any_batches_in_any_order_and_again_give_the_same_interactions(
    data: tuple[list[tuple[Key, int]], list[list[int]]],
    interactions: Callable[..., pa.Table],
    current: Callable[..., list[tuple[object, ...]]],
) -> None:
    rows, places = data
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = OfflineStore(Path(folder) / "whole"), OfflineStore(Path(folder) / "parts")
        everything = interactions(*((*key, label) for key, label in rows))
        whole.write(everything, {}, imported_at=IMPORTED)
        for batch in range(4):
            chosen = [(*key, label) for (key, label), at in zip(rows, places, strict=True) if batch in at]
            if chosen:
                when = IMPORTED + timedelta(hours=batch)
                parts.write(interactions(*chosen), {}, imported_at=when)
        assert [row[:5] for row in current(parts)] == [row[:5] for row in current(whole)]
        before = parts.fingerprint()
        assert parts.write(everything, {}, imported_at=IMPORTED).unchanged == len(rows)
        assert parts.fingerprint() == before
        assert parts.days() == whole.days()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    imports=st.lists(
        st.lists(st.tuples(few, st.integers(0, 1)), min_size=1, unique_by=lambda r: r[0]), max_size=5
    )
)
def test_the_last_label_imported_wins_and_earlier_ones_stay_known(
    imports: list[list[tuple[int, int]]],
    interactions: Callable[..., pa.Table],
    current: Callable[..., list[tuple[object, ...]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = OfflineStore(Path(folder))
        expected: dict[int, int] = {}
        seen = []
        for n, batch in enumerate(imports):
            rows = interactions(*((user, 1, "d", "2024-01-01", label) for user, label in batch))
            store.write(rows, {}, imported_at=IMPORTED + timedelta(hours=n))
            expected.update(batch)
            seen.append(dict(expected))
        for n, labels in enumerate(seen):
            known = {row[0]: row[4] for row in current(store, IMPORTED + timedelta(hours=n))}
            assert known == labels
