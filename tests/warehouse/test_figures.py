"""The metrics of a warehouse, on each database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import pytest

from mmlora.check_rules import AuditCheck
from mmlora.content_hash import ContentHash
from mmlora.load_checks import LoadChecks
from mmlora.schema import DomainVerdict
from mmlora.telemetry import figures
from mmlora.telemetry.figures import Figure, Metric
from mmlora.warehouse.figures import warehouse_figures
from mmlora.warehouse.quality import NightQuality, record_quality
from mmlora.warehouse.readers import keep_promises

TODAY = date(2000, 12, 31)
NOON = datetime(2000, 12, 31, 12, tzinfo=UTC)


def before(days: int) -> date:
    return TODAY - timedelta(days=days)


def collect(desk, now=NOON):
    warehouse = desk.warehouse
    silence = timedelta(minutes=2)
    return warehouse_figures(warehouse.database, warehouse.tables, now=now, silence=silence)


def values(found: Iterable[Figure], metric: Metric) -> dict[tuple[str, ...], float]:
    return {figure.labels: figure.value for figure in found if figure.metric is metric}


def verdict(day: date, *checks: AuditCheck) -> DomainVerdict:
    return DomainVerdict("books", day, "rich", 9, 9, 9, 9, 1.0, 0.5, "as it is", checks=checks)


def test_an_empty_warehouse_has_no_figures(desk):
    assert collect(desk) == []


@pytest.mark.parametrize(("hours", "stale"), [(71.5, 0.0), (72, 1.0)])
def test_a_night_is_stale_from_its_promised_age_on(desk, hours, stale):
    desk.publish(desk.rows(1), day=before(1))
    desk.publish(desk.rows(1), day=before(2))
    keep_promises(desk.warehouse.database, desk.warehouse.tables, {"books": {"max_age_days": 2, "top_k": 9}})
    midnight = datetime(2000, 12, 30, tzinfo=UTC)
    found = collect(desk, now=midnight + timedelta(hours=hours))
    assert values(found, figures.NIGHT) == {("books",): midnight.timestamp()}
    assert values(found, figures.NIGHT_AGE) == {("books",): hours * 3600}
    assert values(found, figures.PROMISED_AGE) == {("books",): 72 * 3600}
    assert values(found, figures.STALE) == {("books",): stale}


def test_without_a_promise_no_night_is_stale(desk):
    desk.publish(desk.rows(1))
    found = collect(desk, now=NOON + timedelta(days=900))
    assert values(found, figures.STALE) == values(found, figures.PROMISED_AGE) == {}
    assert values(found, figures.ROWS) == {("books",): 12}


def test_a_load_tells_its_size_and_rate(desk):
    load = desk.begin()
    table = desk.table(desk.rows(1))
    files = desk.write(load, table)
    content = ContentHash(table.schema)
    content.update(table)
    checks = LoadChecks(users=3, pairs=3000, seconds=1.5)
    desk.warehouse.mark_staged(load, rows=12, content_hash=content.hexdigest(), checks=checks)
    desk.warehouse.publish(load, files)
    found = collect(desk)
    assert values(found, figures.PAIRS) == {("books",): 3000}
    assert values(found, figures.USERS) == {("books",): 3}
    assert values(found, figures.PAIRS_PER_SECOND) == {("books",): 2000}
    assert 0 <= values(found, figures.LOAD_SECONDS)[("books",)] < 600


def test_loads_are_counted_by_night_and_state_and_a_failed_night_is_blocked(desk):
    warehouse = desk.warehouse
    warehouse.promote(None, "v1", alias="champion", who="ann", why="better")
    desk.publish(desk.rows(1), day=before(8))  # before the nights that are counted
    for domain in ("books", "films"):
        desk.publish(desk.rows(1), domain=domain, day=before(1))
    warehouse.reject(desk.begin(day=before(0)), "score_shift: PSI 0.6")
    desk.publish(desk.rows(1), domain="films", day=before(0))
    found = collect(desk)
    assert values(found, figures.LOADS) == {
        ("2000-12-30", "published"): 2,
        ("2000-12-31", "rejected"): 1,
        ("2000-12-31", "published"): 1,
    }
    assert {labels for labels, on in values(found, figures.STATE).items() if on} == {
        ("books", "blocked"),
        ("films", "published"),
    }
    assert len(values(found, figures.STATE)) == 10


def test_checks_are_those_of_the_newest_night_whatever_was_scored_last(desk):
    bad, good = AuditCheck("score_shift", False, "PSI", "warn", 0.6), AuditCheck("schema", True, "1 files")
    late = AuditCheck("late_share", True, "few", "warn", 0.1)
    desk.warehouse.record_verdicts([verdict(before(0), late), verdict(before(1), bad)])
    desk.warehouse.reject(desk.begin(day=before(0)), "no", LoadChecks(audit=(bad, good)))
    desk.publish(desk.rows(1), day=before(3))  # a backfill, later
    found = collect(desk)
    assert values(found, figures.CHECK_FAILED) == {
        ("books", "score_shift", "warn"): 1,
        ("books", "schema", "block"): 0,
        ("books", "late_share", "warn"): 0,
    }
    assert values(found, figures.CHECK_FIGURE) == {
        ("books", "score_shift"): 0.6,
        ("books", "late_share"): 0.1,
    }


def test_a_champion_tells_its_version_and_what_clicks_made_of_it(desk):
    desk.publish(desk.rows(1))
    desk.warehouse.promote(None, "v1", alias="champion", who="ann", why="better")
    desk.warehouse.promote("books", "v2", alias="champion", who="ann", why="better")
    night = NightQuality("books", before(1), "a-load", "v1", 90, 80, 70, auc=0.75, calibration=1.2)
    record_quality(desk.warehouse.database, desk.warehouse.tables, [night])
    found = collect(desk)
    assert values(found, figures.CHAMPION) == {("books", "v2"): 1}
    assert values(found, figures.AUC) == {("books",): 0.75}
    assert values(found, figures.CALIBRATION) == {("books",): 1.2}
