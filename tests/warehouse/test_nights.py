"""What readers have can be taken back and restored, and a night says when all of its domains are there."""

from __future__ import annotations

from datetime import date
from threading import Thread

import pytest

from mmlora.errors import DataError, UsageError
from mmlora.schema import DomainVerdict
from mmlora.warehouse.warehouse import Warehouse

WHO = {"who": "ann", "why": "wrong prices"}


def verdict(domain: str, day: date, kind: str = "rich") -> DomainVerdict:
    return DomainVerdict(domain, day, kind, 1, 1, 1, 1, 1.0, 1.0, "trains", ())


def test_after_unpublishing_the_newest_date_is_the_one_before(desk):
    earlier = date(2000, 12, 30)
    desk.publish(desk.rows(1), day=earlier)
    load = desk.publish(desk.rows(2))

    taken = desk.warehouse.unpublish("books", desk.day, **WHO)

    assert (taken.load_id, taken.state, taken.reason) == (
        *(load.load_id, "superseded", "unpublished by ann: wrong prices"),
    )
    assert desk.seen() == []
    assert desk.seen_by_sql("scores_latest") == desk.rows(1)
    (entry,) = desk.warehouse.ledger("books")
    assert (entry.action, entry.load_id, entry.before_load_id) == ("unpublish", load.load_id, load.load_id)
    assert (entry.who, entry.why, entry.score_date) == ("ann", "wrong prices", desk.day)
    with pytest.raises(UsageError, match="nothing is published for domain 'books' on 2000-12-31"):
        desk.warehouse.unpublish("books", desk.day, **WHO)


def test_a_load_that_was_published_can_be_restored(desk):
    first = desk.publish(desk.rows(1))
    second = desk.publish(desk.rows(2))

    restored = desk.warehouse.restore(desk.warehouse.load(first.load_id), **WHO)

    assert (restored.state, restored.reason) == ("published", None)
    assert desk.seen() == desk.seen_by_sql() == desk.rows(1)
    assert desk.warehouse.load(second.load_id).state == "superseded"
    assert desk.warehouse.restore(restored, **WHO) == restored, "again changes nothing"
    desk.warehouse.unpublish("books", desk.day, **WHO)
    desk.warehouse.restore(second, **WHO)
    assert desk.seen() == desk.rows(2)
    told = [(entry.action, entry.load_id, entry.before_load_id) for entry in desk.warehouse.ledger()]
    assert told == [
        ("restore", second.load_id, None),
        ("unpublish", first.load_id, first.load_id),
        ("restore", first.load_id, second.load_id),
    ]
    newest = desk.publish(desk.rows(3))
    assert desk.warehouse.publication("books", desk.day).load_id == newest.load_id, "a new load wins again"


def test_loads_never_published_or_no_longer_whole_are_not_restored(desk):
    overtaken, _ = desk.stage(desk.rows(1))
    second = desk.publish(desk.rows(2))
    desk.publish(desk.rows(3))
    staged, _ = desk.stage(desk.rows(4))
    with pytest.raises(UsageError, match=r"is staged: only a formerly published load.*mmlora publish"):
        desk.warehouse.restore(staged, **WHO)
    desk.sql(f"DELETE FROM scores WHERE load_key = {second.load_key} AND user_id = 1")
    for load, rows in ((overtaken, 0), (second, 8)):
        with pytest.raises(DataError, match=rf"{rows} of its 12 rows"):
            desk.warehouse.restore(load, **WHO)
    assert desk.seen() == desk.rows(3)
    assert desk.warehouse.ledger() == []


def test_a_night_is_complete_when_all_its_domains_are_published(desk):
    kinds = {"books": "rich", "toys": "thin", "quiet": "absent", "wrong": "broken"}
    desk.warehouse.record_verdicts([verdict(domain, desk.day, kind) for domain, kind in kinds.items()])
    desk.warehouse.record_verdicts([verdict("books", date(2000, 12, 1))])  # a day that is trained on only
    assert desk.warehouse.nights() == []

    desk.publish(desk.rows(1))
    desk.warehouse.record_failure("toys", desk.day, "no model")
    (night,) = desk.warehouse.nights()
    assert (night.score_date, night.domains, night.published) == (desk.day, 3, 1)
    assert not night.complete and night.completed_at is None
    assert night.missing == "toys: no model; wrong: broken, see mmlora validate"

    desk.warehouse.record_verdicts([verdict("wrong", desk.day)])
    desk.stage(desk.rows(2), domain="wrong")
    assert desk.warehouse.nights(desk.day)[0].missing == "toys: no model; wrong: a load is staged"
    for domain in ("wrong", "toys"):
        desk.publish(desk.rows(2), domain=domain)
    (night,) = desk.warehouse.nights()
    assert (night.complete, night.missing) == (True, None)
    assert night.completed_at == desk.warehouse.publication("toys", desk.day).published_at

    desk.warehouse.unpublish("toys", desk.day, **WHO)
    assert desk.warehouse.nights()[0].missing == "toys: unpublished by ann: wrong prices"
    assert desk.warehouse.nights(date(2000, 12, 1)) == []


def test_concurrent_publications_of_a_load_both_succeed(desk, url):
    load, files = desk.stage(desk.rows(1))
    states = []

    def publish_too():
        with Warehouse.open(url) as another:
            states.append(another.publish(load, files).state)

    other = Thread(target=publish_too)

    def files_while_another_begins():
        yield files[0]
        other.start()
        other.join(timeout=0.3)  # it waits for us
        yield from files[1:]

    states.append(desk.warehouse.publish(load, files_while_another_begins()).state)
    other.join()
    assert states == ["published", "published"]
    assert desk.seen() == desk.rows(1)
