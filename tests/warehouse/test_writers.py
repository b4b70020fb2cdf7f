"""What a writer is given: the staged rows in the key's order, read one batch ahead."""

from __future__ import annotations

from threading import Event

import pyarrow as pa
import pytest

from mmlora.warehouse.writers import prefetch, staged_batches


def batch(number):
    return pa.record_batch({"number": [number]})


def test_rows_are_sorted_by_key(desk):
    rows = [(user, item, 1.0, place) for user in (2, 1) for place, item in enumerate((9, 3, 7), 1)]
    load, files = desk.stage(rows)

    found = pa.Table.from_batches(
        staged_batches(files, desk.warehouse.ids, desk.warehouse.load(load.load_id))
    ).to_pylist()

    by_file = [sorted(rows[:5]), sorted(rows[5:])]
    keys = ("user_id", "item_id", "score", "position")
    assert [tuple(row[key] for key in keys) for row in found] == [row for part in by_file for row in part]


def test_only_one_batch_is_prepared_while_another_is_written():
    made, second = [], Event()

    def batches():
        for number in range(5):
            made.append(number)
            if number == 1:
                second.set()
            yield batch(number)

    ahead = prefetch(batches())
    assert next(ahead) == batch(0)
    assert second.wait(timeout=10)
    assert made == [0, 1]
    assert list(ahead) == [batch(number) for number in range(1, 5)]


def test_a_read_error_is_raised_after_the_batches_before_it():
    def batches():
        yield batch(0)
        raise OSError("the disk is gone")

    ahead = prefetch(batches())
    assert next(ahead) == batch(0)
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
