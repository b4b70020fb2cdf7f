"""The last day against the days before: faults that single rows don't show."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from mmlora.check_rules import RULES, rules_in_force
from mmlora.checks.figures import compute_figures
from mmlora.checks.rules import INTERACTIONS, suite_rules
from mmlora.checks.validation import run_validation
from tests.checks.conftest import AS_OF, LIMITS, Row, Store, Validate, days_ago, row, verdicts

RULES_IN_FORCE = rules_in_force({"ctr_min": 0.001, "ctr_max": 0.95, "volume_max_ratio": 50})


def usual(domain: str = "shop", *, days: int = 12, a_day: int = 480) -> list[Row]:
    """Return rows around the clock of 200 users, 100 items and a label rate of 10%."""
    rng = random.Random(domain)
    return [
        row(
            domain,
            days_ago(day) + timedelta(seconds=rng.randrange(86_400), microseconds=place),
            user=rng.randrange(200),
            item=f"i{rng.randrange(100)}",
            label=int(rng.random() < 0.1),
        )
        for day in range(1, days + 1)
        for place in range(a_day)
    ]


def failed(store: Store, as_of: date = AS_OF, **options: Any) -> dict[str, set[str]]:
    """Return the checks that fail, by domain."""
    figures = compute_figures(store.root, as_of=as_of, thresholds=LIMITS, expected_domains=(), **options)
    rules = [rule for rule in suite_rules(LIMITS, RULES_IN_FORCE) if rule.suite == INTERACTIONS]
    return {
        each["domain"]: {rule.check.name for rule in rules if not rule.check.passes(each[rule.column])}
        for each in figures.frame.to_pylist()
    }


def last_day(edit: Callable[[list[Row]], list[Row]]) -> Callable[[list[Row]], list[Row]]:
    def edited(rows: list[Row]) -> list[Row]:
        first = days_ago(1)
        return [r for r in rows if r["event_timestamp"] < first] + edit(
            [r for r in rows if r["event_timestamp"] >= first]
        )

    return edited


def _each(**changes: Callable[[Row], Any]) -> Callable[[list[Row]], list[Row]]:
    return last_day(lambda rows: [{**r, **{name: of(r) for name, of in changes.items()}} for r in rows])


def _later(r: Row, **step: float) -> Row:
    moved = r["event_timestamp"] + timedelta(**step)
    return {**r, "event_timestamp": moved, "known_at": moved}


def _again(rows: list[Row]) -> list[Row]:
    before = [r for r in rows if days_ago(2) <= r["event_timestamp"] < days_ago(1)]
    kept = [r for r in rows if r["event_timestamp"] < days_ago(1)]
    return kept + [_later(r, days=1) for r in before]


FAULTS: dict[str, tuple[Callable[[list[Row]], list[Row]], str]] = {
    "labels flipped": (_each(label=lambda r: 1 - r["label"]), "label_rate_change"),
    "no clicks": (_each(label=lambda r: 0), "label_rate_change"),
    "half of the rows": (last_day(lambda rows: rows[::2]), "quiet_day"),
    "half a day": (
        last_day(lambda rows: [r for r in rows if r["event_timestamp"].hour < 12]),
        "missing_hours",
    ),
    "another time zone": (last_day(lambda rows: [_later(r, hours=5) for r in rows]), "missing_hours"),
    "a bot": (
        last_day(lambda rows: rows + [_later(r | {"user_id": 7}, microseconds=500) for r in rows]),
        "busiest_user",
    ),
    "logged twice": (
        last_day(lambda rows: rows + [_later(r, milliseconds=500) for r in rows]),
        "repeated_pairs",
    ),
    "yesterday's rows again": (_again, "repeated_pairs"),
    "other user ids": (_each(user_id=lambda r: r["user_id"] + 1000), "new_users"),
    "other item ids": (_each(item_id=lambda r: r["item_id"].upper()), "new_items"),
    "twice the rows": (
        last_day(
            lambda rows: (
                rows + [{**_later(r, seconds=1), "item_id": f"i{n % 100}"} for n, r in enumerate(rows)]
            )
        ),
        "busy_day",
    ),
}


def test_a_usual_day_passes_every_check(store: Store) -> None:
    store.write(usual() + usual("small", a_day=6))
    assert failed(store) == {"shop": set(), "small": set()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_last_day_is_caught_in_its_domain(store: Store, fault: str) -> None:
    edit, check = FAULTS[fault]
    store.write(edit(usual()) + usual("other"))
    found = failed(store)
    assert check in found["shop"]
    assert found["other"] == set()


def test_a_domain_is_not_blocked_because_another_changed(store: Store) -> None:
    """Even one whose own label rate is off by chance, as that of few rows may be."""
    edit, _ = FAULTS["labels flipped"]
    few = last_day(lambda rows: [{**r, "label": int(n < 6)} for n, r in enumerate(rows)])
    store.write(edit(usual()) + few(usual("small", a_day=24)) + usual("other"))
    assert failed(store)["small"] == failed(store)["other"] == set()

    none = last_day(lambda rows: [{**r, "label": 0} for r in rows])
    store.write([r for name in ("shop", "other", "small") for r in none(usual(name, a_day=200))])
    assert {name: "label_rate_change_all" in checks for name, checks in failed(store).items()} == {
        "shop": True,
        "other": True,
        "small": True,
    }


def test_a_late_day_is_noticed(store: Store) -> None:
    rows = usual()
    late = [
        {**r, "known_at": days_ago(0.5)} if days_ago(2) <= r["event_timestamp"] < days_ago(1) else r
        for r in rows
    ]
    store.write(late)
    assert failed(store) == {"shop": {"late_share"}}


def test_a_young_domain_has_nothing_to_compare_with(store: Store) -> None:
    rows = usual(days=4)
    store.write(last_day(lambda some: [{**r, "label": 1, "user_id": 1} for r in some[:30]])(rows))
    assert failed(store) == {"shop": set()}


def test_an_empty_day_may_be_declared(store: Store) -> None:
    store.write([r for r in usual() if r["event_timestamp"] < days_ago(1)])
    assert failed(store) == {"shop": {"silence"}}
    assert failed(store, empty_days=[AS_OF - timedelta(days=1)]) == {"shop": set()}


def test_a_warning_does_not_break_a_domain(store: Store, validate: Validate, tmp_path: Any) -> None:
    edit, _ = FAULTS["labels flipped"]
    store.write(edit(usual()))
    assert verdicts(validate(store)) == {"shop": "broken"}
    rules = rules_in_force({}, {"label_rate_change": {"severity": "warn", "owner": "ads"}})
    report = run_validation(
        store.root, as_of=AS_OF, thresholds=LIMITS, expected_domains=(), data_docs=tmp_path, checks=rules
    )
    assert verdicts(report) == {"shop": "rich"} and report.passed
    (check,) = (check for check in report.verdicts[0].checks if check.name == "label_rate_change")
    assert (check.passed, check.severity, check.owner, check.threshold) == (False, "warn", "ads", 2.5)
    assert check.figure is not None and check.figure > 5


def test_a_rules_threshold_can_be_changed() -> None:
    changed = rules_in_force({"ctr_min": 0.2}, {"late_share": {"threshold": 0.9}})
    assert changed["label_rate_low"].threshold == 0.2
    assert changed["late_share"].threshold == 0.9
    assert {name: rule for name, rule in changed.items() if rule in RULES}.keys() == changed.keys() - {
        "label_rate_low",
        "late_share",
    }
    assert replace(changed["late_share"], threshold=0.2) in RULES
