"""DuckDB in memory: what connections share, and what is their own."""

import threading

import duckdb
import pytest

from mmlora.duck import in_memory, kept, kept_open


def _setting(connection, name):
    return connection.execute(f"SELECT current_setting('{name}')").fetchone()[0]


@pytest.mark.parametrize("kept", [False, True])
def test_times_are_in_utc_and_tables_of_ones_own(kept, tmp_path):
    def work():
        with in_memory(tmp_path) as first, in_memory(tmp_path) as second:
            assert _setting(first, "TimeZone") == _setting(second, "TimeZone") == "UTC"
            first.execute("CREATE TEMP TABLE mine AS SELECT 1")
            with pytest.raises(duckdb.CatalogException):
                second.execute("FROM mine")

    if kept:
        with kept_open():
            work()
            work()  # the name is free again
    else:
        work()


def test_kept_connections_share_a_spill_folder_that_is_removed(tmp_path):
    with kept_open():
        for _ in range(2):
            with kept_open(), in_memory(tmp_path) as connection:
                connection.execute("SELECT 1")
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_a_limit_of_ones_own_leaves_the_others_theirs(tmp_path):
    with kept_open(), in_memory(tmp_path) as other:
        before = _setting(other, "memory_limit")
        with in_memory(tmp_path, memory_limit="100 MiB") as limited:
            assert _setting(limited, "memory_limit") == "100.0 MiB"
        assert _setting(other, "memory_limit") == before


def test_order_is_part_of_what_is_shared(tmp_path):
    with kept_open(), in_memory(tmp_path) as ordered, in_memory(tmp_path, ordered=False) as loose:
        assert _setting(ordered, "preserve_insertion_order") is True
        assert _setting(loose, "preserve_insertion_order") is False


def test_threads_share_while_anyone_keeps_it_open(tmp_path):
    found, errors = [], []

    def work(number):
        try:
            with in_memory(tmp_path) as connection:
                connection.execute("CREATE TEMP TABLE mine AS SELECT unnest(range(?)) AS n", [number])
                found.append(connection.execute("SELECT count(*) FROM mine").fetchone()[0])
        except Exception as error:  # reported by the test itself
            errors.append(error)

    with kept_open():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(tmp_path.iterdir())) == 1
    assert not errors
    assert sorted(found) == list(range(1, 9))


def test_values_are_made_once_while_kept():
    made = []

    def value(key):
        return kept(key, lambda: made.append(key) or len(made))

    assert [value("a"), value("a")] == [1, 2]
    with kept_open():
        assert [value("a"), value("b"), value("a")] == [3, 4, 3]
    with kept_open():
        assert value("a") == 5
