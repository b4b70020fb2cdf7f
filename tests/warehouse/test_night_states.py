"""What the page shows of nights and models, for each database."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from mmlora.schema import DomainVerdict, IdTypes
from mmlora.warehouse.night_states import night_states
from mmlora.warehouse.quality import NightQuality, record_quality
from mmlora.warehouse.standing_models import standing_models
from mmlora.warehouse.warehouse import Warehouse

TODAY = date(2000, 12, 31)
WHO = {"who": "ann", "why": "better"}


def before(days: int) -> date:
    return TODAY - timedelta(days=days)


def states(desk, days=5, today=TODAY, silence=timedelta(minutes=2)):
    warehouse = desk.warehouse
    return night_states(warehouse.database, warehouse.tables, days=days, today=today, silence=silence)


@pytest.fixture
def promised(desk):
    """A desk whose champion is v1, the model of all its loads."""
    desk.warehouse.promote(None, "v1", alias="champion", **WHO)
    with desk.warehouse.database.writing() as connection:
        promise = {"domain_id": "books", "max_age_days": 2, "top_k": 20}
        connection.execute(desk.warehouse.tables.promises.insert(), [promise])
    return desk


def test_each_night_has_the_state_of_its_loads(promised):
    warehouse = promised.warehouse
    promised.publish(promised.rows(1), day=before(4))
    warehouse.reject(promised.begin(day=before(3)), "score_shift: PSI 0.6")
    promised.publish(promised.rows(1), day=before(1))
    promised.begin(day=before(0))
    shown = states(promised)
    assert (shown.start, shown.days, shown.domains) == (before(4), 5, {"books": "pbmpr"})


def test_a_running_load_without_a_heartbeat_is_blocked_but_a_staged_one_has_no_process(promised):
    promised.begin(day=before(1))
    promised.stage(promised.rows(1), day=before(0))
    assert states(promised, days=2, silence=timedelta(days=-1)).domains == {"books": "br"}


def test_a_night_that_is_scored_again_is_running_and_a_rejected_retry_leaves_it_published(promised):
    promised.publish(promised.rows(1), day=before(1))
    promised.begin(day=before(1))
    promised.publish(promised.rows(1), day=before(0))
    promised.warehouse.reject(promised.begin(day=before(0)), "score_shift: PSI 0.6")
    assert states(promised, days=2).domains == {"books": "rp"}


def test_another_models_nights_are_stale_and_so_is_a_newest_night_older_than_promised(promised):
    for age in (4, 3):
        promised.publish(promised.rows(1), day=before(age))
    assert states(promised).domains == {"books": "psmm."}
    promised.warehouse.promote("books", "v2", alias="champion", **WHO)
    assert states(promised).domains == {"books": "ssmm."}
    promised.warehouse.promote(None, "v1", alias="champion", **WHO)
    assert states(promised, today=before(2)).domains == {"books": "..pp."}


def test_broken_domains_failed_nights_and_those_taken_back_are_blocked(promised):
    warehouse = promised.warehouse
    warehouse.record_verdicts(
        [
            DomainVerdict("books", before(4), "absent", 0, 0, 0, 0, 0.0, None, "not scored"),
            DomainVerdict("books", before(3), "broken", 9, 9, 9, 9, 1.0, 1.0, "not scored", ("volume_low",)),
        ]
    )
    warehouse.record_failure("books", before(2), "the disk is full")
    promised.publish(promised.rows(1), day=before(1))
    warehouse.unpublish("books", before(1), **WHO)
    promised.publish(promised.rows(1), day=before(0))
    assert states(promised).domains == {"books": ".bbbp"}


def test_freed_nights_are_not_missing(promised):
    promised.publish(promised.rows(1), day=before(1))
    promised.publish(promised.rows(1), day=before(0))
    on = "WHERE score_date = '2000-12-30'"
    promised.sql(f"DELETE FROM publications {on}")
    promised.sql(f"UPDATE score_loads SET state = 'superseded', rows_freed_at = started_at {on}")
    assert states(promised, days=2).domains == {"books": ".p"}


def test_the_period_ends_with_the_newest_night_if_that_is_long_ago(promised):
    promised.publish(promised.rows(1), day=before(0))
    assert states(promised, days=3, today=TODAY + timedelta(days=900)).start == before(2)
    assert states(promised, days=3, today=TODAY + timedelta(days=1)).start == before(1)


def test_domains_that_are_numbers_are_in_their_order(tmp_path):
    with Warehouse.open(f"sqlite:///{tmp_path / 'scores.db'}", ids=IdTypes(domain="int64")) as warehouse:
        for domain in (10, 9):
            warehouse.record_failure(domain, before(1), "the disk is full")
        shown = night_states(
            warehouse.database, warehouse.tables, days=2, today=TODAY, silence=timedelta(minutes=2)
        )
    assert list(shown.domains.items()) == [("9", "b."), ("10", "b.")]


def test_there_is_nothing_to_show_before_the_first_night(desk):
    assert states(desk).domains == {}
    assert models(desk) == []


def models(desk):
    return standing_models(desk.warehouse.database, desk.warehouse.tables, ["books", "toys"])


def test_a_decision_for_all_domains_replaces_their_own_champions(desk):
    for domain, version in ((None, "v1"), ("toys", "v2")):
        desk.warehouse.promote(domain, version, alias="champion", **WHO)
    told = {row.domain: (row.champion, row.challenger) for row in models(desk)}
    assert told == {"all domains": ("v1", None), "books": ("v1", None), "toys": ("v2", None)}
    desk.warehouse.promote(None, "v3", alias="champion", **WHO)
    assert {row.champion for row in models(desk)} == {"v3"}


def test_a_challenger_has_its_last_comparison_and_a_champion_its_newest_measured_night(desk):
    desk.warehouse.promote(None, "v1", alias="champion", **WHO)
    compared = {"domain": "books", "auc": 0.7, "standing": "better"}
    for auc in (0.6, 0.7):
        evidence = {"pooled": {"domain": "all domains"}, "domains": [{**compared, "auc": auc}]}
        desk.warehouse.promote(None, "v2", alias="challenger", evidence=evidence, **WHO)
    figures = {"load_id": "l", "model_version": "v1", "impressions": 9, "scored": 9, "clicks": 3}
    nights = [
        NightQuality("books", before(age), **figures, auc=auc, calibration=1.1)
        for age, auc in ((2, 0.6), (1, 0.65), (0, None))
    ]
    record_quality(desk.warehouse.database, desk.warehouse.tables, nights)
    every, books, toys = models(desk)
    assert (books.measured_on, books.auc, books.calibration) == (before(1), 0.65, 1.1)
    assert (books.challenger, books.compared) == ("v2", compared)
    assert (every.compared, toys.compared) == ({"domain": "all domains"}, None)
