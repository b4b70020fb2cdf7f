"""Schedules of the training DAG: what is valid, and that Airflow's parser of cron agrees."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlora.schedules import NAMED, cron_of

START = datetime(2026, 12, 2, tzinfo=UTC)  # a Wednesday


def next_run(schedule: str) -> datetime:
    croniter = pytest.importorskip("croniter").croniter
    cron = cron_of(schedule)
    assert cron is not None
    moment: datetime = croniter(cron, START).get_next(datetime)
    return moment


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        ("nightly", datetime(2026, 12, 2, 6, tzinfo=UTC)),
        ("weekly", datetime(2026, 12, 7, 6, tzinfo=UTC)),
        ("30 5 * * Sun", datetime(2026, 12, 6, 5, 30, tzinfo=UTC)),
        ("0 4 1,15 jan-mar *", datetime(2027, 1, 1, 4, tzinfo=UTC)),
        ("*/20 7-9/2 * * 1-5", datetime(2026, 12, 2, 7, tzinfo=UTC)),
    ],
)
def test_training_runs_when_the_schedule_says(schedule: str, first: datetime) -> None:
    assert next_run(schedule) == first


def test_never_has_no_time() -> None:
    assert cron_of("never") is None


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("daily", "valid are nightly, weekly, never"),
        ("@daily", "valid are nightly, weekly, never"),
        ("", "valid are nightly, weekly, never"),
        ("0 6 * *", "a cron expression in UTC"),
        ("0 0 6 * * *", "a cron expression in UTC"),
        ("60 6 * * *", "the minute '60' is not from 0 to 59"),
        ("0 6-4 * * *", "the hour '6-4' is not from 0 to 23"),
        ("0 6 0 * *", "the day of the month '0' is not from 1 to 31"),
        ("0 6 * dec,13 *", "the month 'dec,13' is not from 1 to 12"),
        ("0 6 * * monday", "the day of the week 'monday' is not from 0 to 7"),
        ("0/5 6 * * *", "the minute '0/5'"),
        ("*/0 6 * * *", "the minute '\\*/0'"),
        ("0 6 31 2,4 *", "no date has this day and month"),
        ("0 6 ² * *", "the day of the month '²'"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_valid(schedule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        cron_of(schedule)
    assert all(name in str(caught.value) for name in NAMED)


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least - 1, most + 1).map(str)
    span = st.one_of(st.just("*"), number, st.builds("{}-{}".format, number, number))
    step = st.one_of(st.just(""), st.integers(0, 9).map("/{}".format))
    return st.lists(st.builds("{}{}".format, span, step), min_size=1, max_size=2).map(",".join)


@given(st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).map(" ".join))
def test_airflow_finds_a_next_run_of_every_schedule_that_is_not_refused(schedule: str) -> None:
    try:
        cron_of(schedule)
    except ValueError:
        return
    assert next_run(schedule) > START
