"""Promotions and verdicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from mmlora.schema import DomainVerdict

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


def test_a_verdict_is_stored_once_a_domain_and_day(warehouse):
    thin = DomainVerdict("books", DAY, "thin", 10, 1, 3, 4, 10 / 12, 0.1, "leans on others", ("few rows",))
    absent = DomainVerdict("toys", DAY, "absent", 0, 0, 0, 0, 0.0, None, "scored by the backbone")
    warehouse.record_verdicts([absent, thin])
    assert warehouse.verdicts(DAY) == [thin, absent]

    rich = replace(thin, verdict="rich", rows=1000, reasons=())
    warehouse.record_verdicts([rich])
    warehouse.record_verdicts([])
    assert warehouse.verdicts(DAY) == [rich, absent]
    assert warehouse.verdicts(date(2000, 1, 1)) == []
