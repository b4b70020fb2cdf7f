"""Promotions and verdicts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date

from mmlora.schema import DomainVerdict
from mmlora.warehouse import decisions
from mmlora.warehouse.warehouse import Warehouse

DAY = date(2000, 12, 31)


def test_the_newest_decision_for_a_domain_or_for_all_is_current(warehouse):
    def promote(domain, version):
        warehouse.promote(domain, version, alias="champion", who="me", why="test", metrics={"wauc": 0.8})

    assert warehouse.current("champion", "books") is None
    promote(None, "v1")
    assert warehouse.current("champion", "books") == "v1"
    promote("books", "v2")
    assert [warehouse.current("champion", domain) for domain in ("books", "toys", None)] == ["v2", "v1", "v1"]
    promote(None, "v3")
    assert [warehouse.current("champion", domain) for domain in ("books", "toys", None)] == ["v3", "v3", "v3"]
    assert warehouse.current("challenger", "books") is None

    history = warehouse.promotions("champion", "books")
    assert [(found.model_version, found.domain_id) for found in history] == [
        ("v3", None),
        ("v2", "books"),
        ("v1", None),
    ]
    assert history[0].metrics == {"wauc": 0.8}


def test_one_verdict_is_stored_per_domain_and_day(warehouse):
    thin = DomainVerdict("books", DAY, "thin", 10, 1, 3, 4, 10 / 12, 0.1, "leans on others", ("few rows",))
    absent = DomainVerdict("toys", DAY, "absent", 0, 0, 0, 0, 0.0, None, "scored by the backbone")
    warehouse.record_verdicts([absent, thin])
    assert warehouse.verdicts(DAY) == [thin, absent]

    rich = replace(thin, verdict="rich", rows=1000, reasons=())
    warehouse.record_verdicts([rich])
    warehouse.record_verdicts([])
    assert warehouse.verdicts(DAY) == [rich, absent]
    assert warehouse.verdicts(date(2000, 1, 1)) == []


def test_the_first_model_is_the_champion_in_any_case(warehouse):
    first = warehouse.register("v1", who="me", only_first=True, note="a poor one")
    assert (first.alias, first.why) == ("champion", "the first model, a poor one")


def test_the_first_model_is_the_champion_and_a_later_one_the_challenger(warehouse):
    first = warehouse.register("v1", who="me", metrics={"gate": 0.8})
    assert (first.alias, first.why, first.domain_id) == ("champion", "the first model", None)
    second = warehouse.register("v2", who="me")
    assert (second.alias, second.why) == ("challenger", "newly trained")
    assert warehouse.register("v0", who="me", only_first=True) is None
    assert warehouse.current("challenger") == "v2", "nothing was decided"
    assert warehouse.register("v2", who="me", only_first=True).id == second.id
    assert warehouse.register("v1", who="me").id == first.id, "a retry finds the decision that it made"
    assert warehouse.register("v2", who="me").id == second.id
    warehouse.promote(None, "v2", alias="champion", who="me", why="better")
    assert warehouse.register("v2", who="me").alias == "champion"


def test_one_of_two_concurrent_first_models_is_the_champion(warehouse, url):
    """Each on a connection of its own, the one's transaction open while the other begins."""
    started, names = threading.Event(), warehouse.tables

    def other():
        with Warehouse.open(url) as second:
            started.set()
            return second.register("v2", who="you").alias

    with ThreadPoolExecutor(1) as pool:
        with warehouse.database.writing() as connection:
            first = decisions.register(connection, names, model_version="v1", who="me", metrics={})
            waiting = pool.submit(other)
            started.wait(10)
            time.sleep(0.2)
            assert not waiting.done()
        assert (first.alias, waiting.result(30)) == ("champion", "challenger")
    assert warehouse.current("champion") == "v1"
