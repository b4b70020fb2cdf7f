"""Ranges of dates and lists of users, by Python and the command line."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mmlora.errors import DataError, UsageError
from mmlora.pipeline.gc import gc
from mmlora.pipeline.migrate import migrate_warehouse
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.user_file import users_in
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import Workspace
from mmlora_cli.main import app
from tests.conftest import today
from tests.pipeline.test_warehouse import IDS, home, publish, workspace  # noqa: F401  # fixtures

FIRST, GAP, LAST = date(2001, 4, 6), date(2001, 4, 7), date(2001, 4, 9)


@pytest.fixture
def nights(workspace: Workspace, tmp_path: Path) -> Workspace:  # noqa: F811
    """Nights of the 6th, 8th and 9th."""
    with Warehouse.open(workspace.warehouse_url) as warehouse:
        for day in (6, 8):
            publish(warehouse, tmp_path / "more", on=date(2001, 4, day))
    return workspace


def rows(**options: object) -> list[tuple[object, ...]]:
    with read_scores("news", **options) as reader:  # type: ignore[arg-type]
        table = reader.read_all().select(["score_date", "user_id", "item_id"])
    return [(row["score_date"].day, row["user_id"], row["item_id"]) for row in table.to_pylist()]


def a_night(day: int) -> list[tuple[object, ...]]:
    return [(day, "a", 7), (day, "a", 5), (day, "b", 5)]


def test_a_range_is_read_by_date_user_and_position(
    nights: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    assert rows(start=FIRST, end=LAST) == [*a_night(6), *a_night(8), *a_night(9)]
    assert "nothing is published on 2001-04-07" in caplog.text
    caplog.clear()
    assert rows(start=date(2001, 4, 8)) == [*a_night(8), *a_night(9)]
    assert rows(end=FIRST) == a_night(6)
    assert caplog.text == ""
    assert rows(start=FIRST, end=LAST, limit=4) == [*a_night(6), (8, "a", 7)]
    assert rows() == a_night(9)


def test_users_are_read_by_a_list_or_a_file(nights: Workspace, tmp_path: Path) -> None:
    assert rows(start=FIRST, users=["b", "nobody", "b"]) == [(day, "b", 5) for day in (6, 8, 9)]
    pq.write_table(pa.table({"x": [1, 2], "user_id": ["b", None]}), tmp_path / "users.parquet")
    files = {"u.csv": "x,user_id\n1,b\n2,\n", "u.txt": "b\n\n b \n", "bom.csv": "\ufeffuser_id\nb\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in (*files, "users.parquet"):
        assert set(users_in(tmp_path / name)) == {"b"}
        assert rows(users=tmp_path / name) == [(9, "b", 5)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("u.csv", b"user,age\nb,3\n", "has the columns user, age: give Parquet or CSV with a column user_id"),
        ("u.txt", b"\n", "has no ids"),
        ("u.parquet", b"user_id\nb\n", "can't be read"),
        ("u.txt", b"\xff\xfe\x00", "can't be read"),
        ("absent.txt", None, "can't be read"),
    ],
)
def test_a_file_without_users_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        users_in(tmp_path / name)


def test_conflicting_arguments_are_refused(nights: Workspace) -> None:
    for options, message in (
        ({"on": LAST, "start": FIRST}, "two ways to say when"),
        ({"start": LAST, "end": FIRST}, "is after the last"),
        ({"user": "a", "users": ["b"]}, "two ways to say who"),
        ({"start": date(2002, 1, 1), "end": date(2002, 1, 2)}, "go from 2001-04-06 to 2001-04-09"),
    ):
        with pytest.raises(UsageError, match=message):
            rows(**options)


def test_freed_nights_in_a_range_are_named_in_an_error(
    nights: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nights.home / "offline").mkdir()
    (nights.home / "offline" / "ids.json").write_text(json.dumps(IDS.to_dict()))
    gc(keep_days=0)
    with pytest.raises(DataError, match="freed the nights of 2001-04-06, 2001-04-08: leave these dates out"):
        rows(start=FIRST, end=LAST)
    assert rows(start=LAST) == a_night(9)
    assert rows(end=LAST) == a_night(9)


def test_the_command_line_lists_dates_without_scores_on_standard_error(
    nights: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "u.txt").write_text("b\n")
    command = ["read", "--domain", "news", "--start", "2001-04-06", "--end", "2001-04-09", "--format", "csv"]
    out = tmp_path / "out.csv"
    done = CliRunner().invoke(app, [*command, "--users", str(tmp_path / "u.txt"), "--output", str(out)])
    assert done.exit_code == 0, done.output
    assert len(out.read_text().splitlines()) == 1 + 3
    assert "nothing is published on 2001-04-07" in caplog.text


def test_migrate_stores_the_promises_for_the_views(
    nights: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    age = (today() - LAST).days

    def seen() -> list[object]:
        with read_scores("news") as reader:
            row = reader.read_all().to_pylist()[0]
        return [row["age_days"] == age, row["is_stale"]]

    migrate_warehouse()
    assert seen() == [True, True]
    monkeypatch.setenv("MMLORA_PROMISES__MAX_AGE_DAYS", "1")
    monkeypatch.setenv("MMLORA_PROMISES__DOMAINS", '{"news": {"max_age_days": 99999}}')
    migrate_warehouse()
    assert seen() == [True, False]
