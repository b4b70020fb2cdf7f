"""The helpers that the tasks share."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from mmlora.errors import UsageError


@pytest.fixture
def tasks(dag_bag):
    """The module, imported after Airflow has its home."""
    from mmlora.airflow_plugin import tasks

    return tasks


@pytest.fixture
def within(tasks, monkeypatch):
    """Run a helper as if inside a task with this context."""

    def enter(**context):
        monkeypatch.setattr(tasks, "get_current_context", lambda: context)

    return enter


def test_the_date_comes_from_the_params(tasks, within):
    within(params={"date": "2000-12-31"}, data_interval_end=datetime(2026, 5, 1, tzinfo=UTC))
    assert tasks.run_date() == date(2000, 12, 31)


def test_the_date_is_else_the_end_of_the_data_interval_in_utc(tasks, within):
    just_past_midnight_in_tokyo = datetime(2026, 5, 2, 0, 30, tzinfo=timezone(timedelta(hours=9)))
    within(params={"date": None}, data_interval_end=just_past_midnight_in_tokyo)
    assert tasks.run_date() == date(2026, 5, 1)


def test_a_run_without_data_interval_takes_the_day_it_was_asked_for(tasks, within):
    within(params={"date": None}, dag_run=SimpleNamespace(run_after=datetime(2026, 5, 1, 23, 59, tzinfo=UTC)))
    assert tasks.run_date() == date(2026, 5, 1)


def test_options_are_what_was_filled_in(tasks, within):
    within(params={"backbone": "deepfm", "seed": 0, "split": None, "date": "2000-12-31"})
    assert tasks.options("backbone", "seed", "split") == {"backbone": "deepfm", "seed": 0}


@pytest.mark.parametrize("wanted", [None, []])
def test_no_domain_named_means_all(tasks, wanted):
    assert tasks.chosen(["a", "b"], wanted) == ["a", "b"]


def test_named_domains_are_scored_alone(tasks):
    assert tasks.chosen(["a", "b", "c"], ["c", "a"]) == ["a", "c"]


def test_a_domain_that_cannot_be_scored_is_refused_by_name(tasks):
    with pytest.raises(UsageError, match=r"'x'.*a, b"):
        tasks.chosen(["a", "b"], ["a", "x"])


def test_a_dag_switched_on_at_noon_waits_for_its_hour(tasks):
    schedule = tasks.daily(hour=1)["schedule"]
    assert schedule.run_immediately == timedelta(minutes=10)


def test_a_tasks_log_hides_the_passwords_of_the_settings(tasks, monkeypatch, tmp_path):
    from airflow.sdk.log import redact

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", "postgresql://user:pl4nted%20w%2Ford@host/db")
    tasks.module("runs")
    assert "w/ord" not in str(redact("no connection to host with pl4nted w/ord"))
