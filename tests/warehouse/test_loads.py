"""A load's life: states, attempts, heartbeats, and being given up."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from mmlora.errors import ContractError, TransientError, UsageError
from mmlora.load_checks import LoadChecks
from mmlora.numerics import Numerics, together
from tests.warehouse.conftest import AUDITED

NOW = timedelta(0)


def test_a_load_is_stored_with_all_of_its_facts(desk):
    load, _ = desk.stage(desk.rows(1))
    found = desk.warehouse.load(load.load_id)

    assert (found.state, found.attempt, found.rows) == ("staged", 1, 12)
    assert found.content_hash is not None and len(found.content_hash) == 64
    assert (found.domain_id, found.score_date) == ("books", desk.day)
    assert (found.model_version, found.contract_hash, found.checks) == ("v1", "c0", AUDITED)
    assert abs(found.started_at - datetime.now(UTC)) < timedelta(minutes=5)
    with pytest.raises(UsageError, match="no load 'nothing'"):
        desk.warehouse.load("nothing")


ZEN = Numerics("AMD EPYC", "MKL_CBWR=AUTO,STRICT", "2.13.0")


def test_hashes_of_the_same_numerics_are_compared(desk):
    def staged(content_hash):
        load = desk.begin()
        desk.warehouse.mark_staged(load, rows=1, content_hash=content_hash, checks=LoadChecks(), numerics=ZEN)
        return desk.warehouse.load(load.load_id)

    one, again, other = staged("a"), staged("a"), staged("b")
    assert one.numerics == ZEN
    assert one.same_rows_as(again) and not one.same_rows_as(other)


@pytest.mark.parametrize(
    "found",
    [
        None,
        replace(ZEN, processor="Intel Xeon"),
        replace(ZEN, kernels="MKL_CBWR=COMPATIBLE"),
        replace(ZEN, torch_version="2.14.0"),
        together([ZEN, replace(ZEN, processor="Intel Xeon")]),
    ],
)
def test_hashes_of_other_numerics_are_not_compared(desk, found):
    loads = []
    for numerics in (ZEN, found):
        loads.append(load := desk.begin())
        desk.warehouse.mark_staged(load, rows=1, content_hash="a", checks=LoadChecks(), numerics=numerics)
    one, other = (desk.warehouse.load(load.load_id) for load in loads)
    for pair in ((one, other), (other, one)):
        with pytest.raises(ContractError, match="compare the scores by tolerance"):
            pair[0].same_rows_as(pair[1])


@pytest.mark.parametrize(
    "found", [replace(ZEN, kernels="CUDA 13.0"), together([ZEN, replace(ZEN, processor="b")])]
)
def test_hashes_of_nondeterministic_numerics_are_not_compared(desk, found):
    load = desk.begin()
    desk.warehouse.mark_staged(load, rows=1, content_hash="a", checks=LoadChecks(), numerics=found)
    again = desk.warehouse.load(load.load_id)
    with pytest.raises(ContractError, match="can't be compared"):
        again.same_rows_as(again)


def test_concurrent_begins_are_separate_attempts(desk):
    with ThreadPoolExecutor(4) as pool:
        loads = list(pool.map(lambda _: desk.begin(), range(8)))
    assert sorted(load.attempt for load in loads) == list(range(1, 9))
    assert len({load.load_id for load in loads}) == len({load.load_key for load in loads}) == 8
    assert desk.begin(domain="toys").attempt == 1


def test_loads_are_listed_newest_first(desk):
    first = desk.begin()
    second = desk.begin(domain="toys")
    third = desk.begin(day=date(2001, 1, 1))
    desk.warehouse.fail(third, "out of memory")

    def listed(**which):
        return [load.load_key for load in desk.warehouse.loads(**which)]

    assert listed() == [third.load_key, second.load_key, first.load_key]
    assert listed(limit=1) == [third.load_key]
    assert listed(domain="books", score_date=desk.day) == [first.load_key]
    assert listed(states=("failed",)) == [third.load_key]


def test_the_next_begin_for_a_domain_and_date_abandons_a_load_without_heartbeat(desk):
    lost = desk.begin()
    elsewhere = desk.begin(domain="toys")
    time.sleep(0.05)
    assert {load.load_key for load in desk.warehouse.stale_loads(NOW)} == {lost.load_key, elsewhere.load_key}
    assert desk.warehouse.stale_loads(timedelta(hours=1)) == []

    desk.begin(stale_after=timedelta(hours=1))
    assert desk.warehouse.load(lost.load_id).state == "running"
    desk.begin(stale_after=NOW)

    found = desk.warehouse.load(lost.load_id)
    assert (found.state, found.reason) == ("failed", "given up: its process stopped sending heartbeats")
    assert desk.warehouse.load(elsewhere.load_id).state == "running"
    with pytest.raises(TransientError, match="given up"):
        desk.warehouse.heartbeat(lost)


def test_a_heartbeat_keeps_a_load_alive(desk):
    load = desk.begin()
    time.sleep(1)
    before = time.monotonic()
    desk.warehouse.heartbeat(load)
    assert desk.warehouse.stale_loads(timedelta(seconds=time.monotonic() - before + 0.9)) == []
    assert desk.warehouse.load(load.load_id).heartbeat_at > load.heartbeat_at


def test_a_step_out_of_order_is_refused(desk):
    load = desk.publish(desk.rows(1))
    for step in (
        lambda: desk.warehouse.mark_staged(load, rows=1, content_hash="", checks=LoadChecks()),
        lambda: desk.warehouse.fail(load, "late"),
        lambda: desk.warehouse.reject(load, "late"),
    ):
        with pytest.raises(UsageError, match="is published"):
            step()
    assert desk.warehouse.load(load.load_id) == load


def test_ids_of_the_wrong_type_are_refused(desk):
    with pytest.raises(ContractError, match="domain 7 is int; this warehouse's domain ids are string"):
        desk.begin(domain=7)
    with pytest.raises(ContractError, match="user '1' is str"):
        desk.warehouse.read("books", user="1")


def test_publications_are_listed_by_domain_and_date(desk):
    days = [date(2001, 1, day) for day in (1, 2, 3)]
    for day in days:
        desk.publish(desk.rows(1), day=day)
    desk.publish(desk.rows(1), domain="toys", day=days[0])

    def listed(**which):
        return [(found.domain_id, found.score_date) for found in desk.warehouse.publications(**which)]

    assert listed() == [("books", days[2]), ("books", days[1]), ("books", days[0]), ("toys", days[0])]
    assert listed(domain="books", start=days[1], end=days[1]) == [("books", days[1])]
    assert desk.warehouse.publication("books").score_date == days[2]
    assert desk.warehouse.publication("toys", days[1]) is None
