"""Faults dropped into the store: found, told, and charged to their own domain only."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from mmlora.errors import DataError
from tests.checks.conftest import LIMITS, Store, Validate, days_ago, healthy, row, verdicts


def test_invalid_rows_break_only_their_domain(store: Store, validate: Validate) -> None:
    at = days_ago(3)
    faults = {
        "label": (row("label", at, label=7), "label other than 0 and 1"),
        "no_label": (row("no_label", at, label=None), "without label"),
        "no_user": (row("no_user", at, user=None), "without user_id"),
        "no_item": (row("no_item", at, item=None), "without item_id"),
        "no_time": (row("no_time", at, event_timestamp=None), "without event_timestamp"),
        "no_known_at": (row("no_known_at", at, known_at=None), "without known_at"),
        "epoch": (row("epoch", days_ago(0) - timedelta(days=19783)), "out of range"),
        "foreseen": (row("foreseen", days_ago(-400), known_at=at), "out of range"),
    }
    store.write([each for domain in [*faults, "good"] for each in healthy(domain)])
    store.write([faulty for faulty, _ in faults.values()], name="dropped")
    store.drop(pa.Table.from_pylist([row("misplaced", at)], schema=store.schema), "day=2024-01-09/x.parquet")
    report = validate(store)
    found = {each.domain_id: each for each in report.verdicts}
    assert {domain for domain, each in found.items() if each.verdict == "broken"} == {*faults, "misplaced"}
    assert found["good"].verdict == "rich"
    assert report.suites["interactions"] is False
    for domain, (_, what) in faults.items():
        assert any(what in reason and "dropped.parquet" in reason for reason in found[domain].reasons), domain
    assert "folder of another day" in found["misplaced"].reasons[0]
    assert any(line.startswith("interactions: label: 1 rows with a label") for line in report.failures)


def test_rows_without_a_domain_are_reported_and_the_others_checked(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    store.write([row(None, days_ago(3)), row(None, days_ago(4))], name="dropped")
    report = validate(store)
    assert verdicts(report) == {"a": "rich"}
    assert report.suites["interactions"] is False
    assert [line for line in report.failures if "2 rows without domain_id" in line]


def test_a_wrong_type_breaks_the_domains_of_its_file(store: Store, validate: Validate) -> None:
    dropped: dict[str, tuple[str, pa.DataType, object]] = {
        "wide": ("label", pa.int64(), 1),
        "words": ("label", pa.string(), "yes"),
        "user": ("user_id", pa.string(), "7"),
        "naive": ("event_timestamp", pa.timestamp("us"), days_ago(3).replace(tzinfo=None)),
        "number": ("known_at", pa.int64(), 1),
    }
    store.write([each for domain in [*dropped, "good"] for each in healthy(domain)])
    for domain, (column, kind, value) in dropped.items():
        store.write([{**row(domain, days_ago(3)), column: value}], name=domain, **{column: kind})
    found = {each.domain_id: each for each in validate(store).verdicts}
    assert found.pop("good").verdict == "rich"
    for domain, (column, kind, _) in dropped.items():
        assert found[domain].verdict == "broken"
        assert f"{domain}.parquet ({column} is {kind}, not" in found[domain].reasons[0]


def test_other_string_types_are_valid(store: Store, validate: Validate) -> None:
    kinds = {"item_id": pa.large_string(), "domain_id": pa.dictionary(pa.int32(), pa.string())}
    store.write(healthy("a"), **kinds)
    assert validate(store).failures == []


def test_repeated_keys(store: Store, validate: Validate) -> None:
    rows = healthy("a") + healthy("b")
    store.write(rows)
    store.write(rows[:4], name="again")
    report = validate(store)
    assert verdicts(report) == {"a": "broken", "b": "rich"}
    assert report.verdicts[0].reasons == ("4 rows that repeat another row's key",)


def test_a_volume_that_explodes(store: Store, validate: Validate) -> None:
    burst = [
        row("b", days_ago(1) + timedelta(seconds=place), user=place % 50, item=f"i{place}", label=place % 2)
        for place in range(400)
    ]
    store.write([*healthy("a"), *healthy("b"), *burst])
    report = validate(store)
    assert verdicts(report) == {"a": "rich", "b": "broken"}
    assert "times the mean day, over 5" in report.verdicts[1].reasons[0]


def test_small_and_new_domains_may_jump(store: Store, validate: Validate) -> None:
    """A busy user in a quiet domain, and a launch, are no faults; nor is its day without rows."""

    def busy(domain: str, count: int) -> list[dict[str, object]]:
        return [
            row(domain, days_ago(1) + timedelta(seconds=place), item=f"i{place}") for place in range(count)
        ]

    quiet = [row("quiet", days_ago(day)) for day in range(2, 20)]
    young = [row("young", days_ago(day)) for day in range(2, 5)]
    calm = [row("calm", days_ago(day)) for day in range(1, 20, 4)]
    store.write([*quiet, *busy("quiet", 90), *young, *busy("young", 500), *busy("first_day", 500), *calm])
    report = validate(store)
    assert "broken" not in verdicts(report).values()
    assert report.passed


def test_a_day_that_is_missing_or_cut_short_breaks_its_domain_and_fails(
    store: Store, validate: Validate
) -> None:
    """By the days before, beyond chance: of ten rows a day half may be missing, but not all."""
    last_day = days_ago(1)

    def until(rows: list[dict[str, Any]], days: float) -> list[dict[str, Any]]:
        return [each for each in rows if each["event_timestamp"] < days_ago(days)]

    cut = healthy("cut", a_day=300)
    store.write(
        [
            *healthy("well"),
            *until(healthy("silent"), 1),
            *until(healthy("silent for days", a_day=4), 3),
            *until(healthy("hundreds", a_day=300), 1),
            *until(cut, 1),
            *[each for each in cut if each["event_timestamp"] >= last_day][:20],
            *until(healthy("half", a_day=10), 1),
            *[each for each in healthy("half", a_day=10) if each["event_timestamp"] >= last_day][:5],
            *until(healthy("too few to say", a_day=3), 1),
        ]
    )
    report = validate(store)
    broken = {each.domain_id: each.reasons for each in report.verdicts if each.verdict == "broken"}
    assert set(broken) == {"silent", "silent for days", "hundreds", "cut"}
    assert "no rows on the last day: by the days before, a chance of" in broken["silent"][0]
    assert "times the mean day at most, under 0.25" in broken["cut"][0]
    assert not report.passed and report.day_failures == ()
    off = validate(store, limits=replace(LIMITS, volume_min_ratio=0))
    assert "broken" not in verdicts(off).values() and off.passed


def test_days_without_rows_are_no_fault_in_a_domain_of_bursts(store: Store, validate: Validate) -> None:
    """A domain whose rows come in sittings of 100, on a third of the days, has days without any."""
    sittings = [
        row("clumps", days_ago(day) + timedelta(seconds=place), user=day, item=f"i{place}", label=place % 2)
        for day in (2, 5, 7, 11)
        for place in range(100)
    ]
    store.write([*healthy("well"), *sittings])
    assert verdicts(validate(store)) == {"clumps": "thin", "well": "rich"}


def test_a_day_without_any_rows_fails(store: Store, validate: Validate) -> None:
    quiet = [row(domain, days_ago(day)) for domain in ("a", "b") for day in range(2, 12, 2)]
    store.write(quiet)
    report = validate(store)
    assert "broken" not in verdicts(report).values()
    assert not report.passed
    assert report.day_failures == ("no domain has rows on 2024-02-29, the last day: import it first",)
    gone = validate(store, as_of=date(2025, 1, 1))
    assert gone.day_failures == ("no domain has rows in the last 10 days: all are absent",)
    assert not gone.passed


def test_a_label_rate_beyond_chance_is_reported(store: Store, validate: Validate) -> None:
    rows = healthy("always") + healthy("never") + healthy("few", a_day=1)
    labels = {"always": 1, "never": 0, "few": 1}
    store.write([{**each, "label": labels[each["domain_id"]]} for each in rows])
    limits = replace(LIMITS, ctr_min=0.05)
    found = {each.domain_id: each for each in validate(store, limits=limits).verdicts}
    assert {domain: each.verdict for domain, each in found.items()} == {
        "always": "broken",
        "never": "broken",
        "few": "thin",  # ten clicks of ten may be chance
    }
    assert "under 0.05" in found["never"].reasons[0]


def test_unreadable_files_and_missing_columns_are_errors(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    folder = store.root / "interactions" / "day=2024-02-20"
    (folder / "text.parquet").write_text("user_id,item_id")
    store.drop(pa.table({"user_id": [1], "label": pa.array([1], pa.int8())}), "day=2024-02-20/short.parquet")
    with pytest.raises(DataError) as caught:
        validate(store)
    told = str(caught.value)
    assert "day=2024-02-20/text.parquet is not a readable Parquet file" in told
    assert "column 'item_id': missing from day=2024-02-20/short.parquet" in told


def test_damage_behind_a_valid_footer_is_an_error(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    file = next(store.root.rglob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[4:400] = b"\xff" * 396
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read to its end"):
        validate(store)


def test_a_missing_store_says_what_to_do(store: Store, validate: Validate) -> None:
    with pytest.raises(DataError, match="import data first"):
        validate(store)
    (store.root / "ids.json").unlink()
    with pytest.raises(DataError, match="import data first"):
        validate(store)
