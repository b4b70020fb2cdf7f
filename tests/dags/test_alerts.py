"""What an alert says when little is known."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pytest

from mmlora.airflow_plugin import alerts


def test_a_warehouse_that_is_gone_is_told_with_the_run_that_failed(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path))
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", "postgresql+psycopg://me:hidden-word@127.0.0.1:1/gone")
    said = alerts.alert("failed", alerts.NIGHTLY, "a-run", date(2026, 11, 30))
    assert "nightly_scoring of 2026-11-30 failed" in said["text"] and "can't be read" in said["text"]
    assert said["command"] == "mmlora score --date 2026-11-30" and "domains" not in said
    assert "hidden-word" not in said["text"]


def test_a_run_with_a_date_that_is_none_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[alerts.Alert] = []
    monkeypatch.setattr(alerts, "send", told.append)
    run = SimpleNamespace(conf={"date": "tomorrow"}, data_interval_end=None, run_after=None)
    alerts.run_failed({"dag": SimpleNamespace(dag_id="training"), "run_id": "a-run", "dag_run": run})
    assert told[0]["date"] is None and "training of an unknown date failed (run a-run)" in told[0]["text"]
