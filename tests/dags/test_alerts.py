"""What an alert says of a backfill, and when little is known."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mmlora.airflow_plugin import alerts, unpublished
from mmlora.errors import MmloraError
from mmlora.pipeline.backfill import backfill
from mmlora_cli.main import app
from tests.conftest import published


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


FORM = {"start": "2001-04-08", "end": "2001-04-09", "top_k": 4, "reason": None, "state": "all"}


def test_a_failed_backfill_is_told_with_its_nights_and_the_command_that_scores_them(
    trained_workspace: Path,
) -> None:
    with closing(sqlite3.connect(trained_workspace / "warehouse.db")) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON score_loads WHEN NEW.domain_id = 'sport' "
            "BEGIN SELECT RAISE(ABORT, 'no sport tonight'); END"
        )
        backfill(["news", "sport"], date(2001, 4, 8), date(2001, 4, 9), top_k=4)
        database.execute("DROP TRIGGER refuse")
    said = alerts.alert("failed", "backfill", "a-run", None, {**FORM, "domains": ["news", "sport"]})
    assert (said["start"], said["end"], said["date"]) == ("2001-04-08", "2001-04-09", None)
    assert [(night["domain"], night["date"]) for night in said["nights"]] == [
        ("sport", "2001-04-08"),
        ("sport", "2001-04-09"),
    ]
    assert all("no sport tonight" in night["reason"] for night in said["nights"])
    assert "backfill of 2001-04-08 to 2001-04-09 failed (run a-run)" in said["text"]
    assert said["text"].endswith(said["command"])
    done = CliRunner().invoke(app, shlex.split(said["command"])[1:])
    assert done.exit_code == 0, done.output
    assert {row["position"] for row in published("sport", date(2001, 4, 9))} == {1, 2, 3, 4}
    again = alerts.alert("failed", "backfill", "a-run", None, {**FORM, "domains": ["news", "sport"]})
    assert (again["nights"], "command" in again) == ([], False)


@pytest.mark.parametrize(
    ("form", "command"),
    [
        ({}, "mmlora backfill --all-domains --start 2001-04-08 --end 2001-04-09"),
        ({"domains": []}, "mmlora backfill --all-domains --start 2001-04-08 --end 2001-04-09"),
        (
            {"domains": ["a b", "c"], "plan_only": True, "allow_stale": False},
            "mmlora backfill --domain 'a b' --domain c --start 2001-04-08 --end 2001-04-09 --plan",
        ),
        (
            {"override": ["score_shift", "few_rows"], "reason": "a sale", "allow_stale": True, "max_rows": 9},
            "mmlora backfill --all-domains --start 2001-04-08 --end 2001-04-09 --max-rows 9 --allow-stale "
            "--override score_shift --override few_rows --reason 'a sale'",
        ),
    ],
)
def test_a_backfill_that_cannot_be_planned_is_told_with_the_command_of_its_form(
    form: dict[str, object], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise MmloraError("the workspace is gone")

    monkeypatch.setattr("mmlora.pipeline.backfill.backfill", gone)
    facts, lines = unpublished.of_backfill({**form, "end": "2001-04-09", "start": "2001-04-08"})
    assert facts == {"command": command}
    assert "the workspace is gone" in lines[0] and lines[1].endswith(command)


def test_an_alert_lists_twenty_nights_and_says_how_many_more_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night = {"domain": "news", "date": "2001-04-08", "reason": "not published", "load": None}
    monkeypatch.setattr(unpublished, "_missing_nights", lambda *_, **__: [night] * 1500)
    facts, lines = unpublished.of_backfill({"start": "2001-04-08", "end": "2005-04-09"})
    assert len(facts["nights"]) == 1500
    assert len(lines) == 23 and lines[20] == "- and 1,480 more"
