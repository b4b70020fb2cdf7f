"""Verdicts by domain, and what counts towards them."""

import dataclasses
from datetime import date, timedelta
from pathlib import Path

import pytest

from mmlora.checks.thresholds import Thresholds
from mmlora.errors import UsageError
from mmlora.schema import IdTypes
from mmlora.settings import CheckSettings
from tests.checks.conftest import AS_OF, LIMITS, Store, Validate, days_ago, healthy, row, verdicts


def test_rich_thin_and_absent(store: Store, validate: Validate) -> None:
    store.write([*healthy("big"), *healthy("small", a_day=2), *[row("gone", days_ago(15))]])
    report = validate(store, "never", "big")
    assert verdicts(report) == {"big": "rich", "gone": "absent", "never": "absent", "small": "thin"}
    assert report.suites == {"interactions": True, "domain_sparsity": False}
    by_domain = {each.domain_id: each for each in report.verdicts}
    assert by_domain["never"].reasons == ("no rows in the last 10 days",)
    assert by_domain["never"].ctr is None
    assert "20 rows, under 50" in by_domain["small"].reasons
    assert by_domain["big"].reasons == ()
    assert "domain_sparsity: never: no rows in the last 10 days" in report.failures


def test_valid_data_passes(store: Store, validate: Validate) -> None:
    store.write(healthy("a") + healthy("b"))
    report = validate(store)
    assert report.suites == {"interactions": True, "domain_sparsity": True}
    assert report.failures == []


def test_figures_equal_a_count_by_hand(store: Store, validate: Validate) -> None:
    rows = healthy("a")
    store.write(rows)
    window = [each for each in rows if each["event_timestamp"] >= days_ago(10)]
    users, items = ({each[key] for each in window} for key in ("user_id", "item_id"))
    positives = sum(each["label"] for each in window)
    (verdict,) = validate(store).verdicts
    assert (verdict.rows, verdict.positives) == (len(window), positives)
    assert (verdict.users, verdict.items) == (len(users), len(items))
    assert verdict.density == pytest.approx(len(window) / (len(users) * len(items)))
    assert verdict.ctr == pytest.approx(positives / len(window))
    assert verdict.as_of == AS_OF


def test_future_rows_do_not_count(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    before = validate(store)
    late = days_ago(2) + timedelta(hours=5)
    store.write(
        [
            row("a", days_ago(0), user=99),  # as_of itself is no longer before it
            row("a", days_ago(-3), user=99, label=7),
            row("a", late, user=99, known_at=days_ago(-1)),  # it happened in time and was known too late
            row("new", late, known_at=days_ago(0) + timedelta(microseconds=1)),
        ],
        name="later",
    )
    assert validate(store) == before
    later = validate(store, as_of=AS_OF + timedelta(days=1))
    assert set(verdicts(later)) == {"a", "new"}


def test_a_row_known_at_midnight_counts(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    (before,) = validate(store).verdicts
    store.write([row("a", days_ago(1) + timedelta(hours=23), user=99, known_at=days_ago(0))], name="b")
    (after,) = validate(store).verdicts
    assert (after.rows, after.users) == (before.rows + 1, before.users + 1)


def test_a_correction_replaces_the_label_once_known(store: Store, validate: Validate) -> None:
    rows = healthy("a")
    store.write(rows)
    (before,) = validate(store).verdicts
    wrong = next(each for each in rows if each["event_timestamp"] >= days_ago(5) and each["label"] == 0)
    store.write([{**wrong, "label": 1, "known_at": days_ago(0.5)}], name="correction")
    store.write([{**wrong, "label": 0, "known_at": days_ago(-1)}], name="later_correction")
    (after,) = validate(store).verdicts
    assert (after.rows, after.positives, after.verdict) == (before.rows, before.positives + 1, "rich")


def test_validating_again_gives_the_same(store: Store, validate: Validate, tmp_path: Path) -> None:
    store.write([*healthy("a"), row("b", days_ago(2))])
    first = validate(store, "c")
    pages = sorted(path.relative_to(tmp_path) for path in (tmp_path / "docs").rglob("*.html"))
    assert validate(store, "c") == first
    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "docs").rglob("*.html")) == pages


def test_integer_ids(tmp_path: Path, validate: Validate) -> None:
    store = Store(tmp_path / "ints", IdTypes(user="string", item="int64", domain="int64"))
    rows = [
        {**each, "user_id": f"u{each['user_id']}", "item_id": int(each["item_id"][1:])}
        for domain in (10, 9)
        for each in healthy(domain)
    ]
    store.write([*rows, row(3, days_ago(2), user="u", item=1, label=7)])
    report = validate(store, 11, "12")
    assert verdicts(report) == {3: "broken", 9: "rich", 10: "rich", 11: "absent", 12: "absent"}
    assert [each.domain_id for each in report.verdicts] == [3, 9, 10, 11, 12]
    with pytest.raises(UsageError, match="'abc' is not int64"):
        validate(store, "abc")


def test_all_of_many_failing_domains_are_reported(store: Store, validate: Validate) -> None:
    store.write([row(f"d{number:03}", days_ago(3), label=7) for number in range(60)])
    assert set(verdicts(validate(store, *(f"e{number:03}" for number in range(60)))).values()) == {
        "broken",
        "absent",
    }


def test_equal_limits_distinguish_absent_and_thin(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    limits = dataclasses.replace(LIMITS, rich_min_rows=1)
    assert verdicts(validate(store, "b", limits=limits)) == {"a": "rich", "b": "absent"}


def test_a_density_limit_can_be_set(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    report = validate(store, limits=dataclasses.replace(LIMITS, min_density=0.9))
    assert verdicts(report) == {"a": "thin"}
    assert report.verdicts[0].reasons[0].endswith("density, under 0.9")


def test_all_domains_are_absent_before_the_first_row(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    assert verdicts(validate(store, "b", as_of=date(2020, 1, 1))) == {"b": "absent"}


def test_thresholds_mirror_the_settings() -> None:
    settings = CheckSettings().model_dump(exclude={"domains", "rules", "empty_days"})
    assert settings == dataclasses.asdict(Thresholds())
