"""A night that goes wrong: stale data, a domain's mistake, a load far too small; and what takes it back."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mmlora.errors import CheckError, ContractError, DataError, TransientError, UsageError
from mmlora.nights.load import score
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.compare import compare, dry_run
from mmlora.pipeline.data import accept_files
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.publish import publish
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import domain_status, status
from mmlora.pipeline.unpublish import restore, unpublish
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import take_warehouse

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


@pytest.fixture
def home(trained_workspace: Path) -> Path:
    """A copy of the workspace, on SQLite."""
    return trained_workspace


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("duckdb", marks=pytest.mark.slow),
        pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow]),
    ]
)
def champion(
    request: pytest.FixtureRequest, trained: tuple[Path, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The copy's champion, on each warehouse."""
    version = trained[1]
    if request.param != "sqlite":
        of_duckdb = f"duckdb:///{home / 'scores.duckdb'}"
        url = of_duckdb if request.param == "duckdb" else request.getfixturevalue("postgres_url")
        take_warehouse(monkeypatch, home, version, url)
    return version


def _another(version: str, block_rows: int) -> str:
    """Register a model that differs from a version in its blocks only."""
    bundles = open_workspace().bundles
    return bundles.save(replace(bundles.load(version).manifest, block_rows=block_rows))


def _run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _code(*arguments: Any) -> int:
    """Return what the command line would exit with."""
    result = _run(*arguments)
    return int(getattr(result.exception, "exit_code", result.exit_code))


def _rows(domain: str = "news", on: date | None = None) -> int:
    with read_scores(domain, on=on) as reader:
        return int(reader.read_all().num_rows)


def test_a_command_opens_the_warehouse_once(champion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, really = [], Warehouse.open

    def counted(*arguments: Any, **options: Any) -> Warehouse:
        opened.append(really(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(Warehouse, "open", counted)
    for verb in (
        lambda: score_and_publish(ON),
        lambda: backfill("news", BEFORE, ON),
        lambda: promote(champion, accept_below_baseline=True),
        lambda: unpublish("news", ON, reason="a test"),
    ):
        opened.clear()
        verb()
        assert len(opened) == 1


def test_a_date_that_the_data_does_not_reach_is_refused(
    champion: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_and_publish(ON, domain="news")
    later = ON + timedelta(days=2)
    with pytest.raises(
        CheckError, match=r"the data ends on 2001-04-09.*2001-04-10 is the last.*--allow-stale"
    ):
        score_and_publish(later)
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.publication("news").score_date == ON
        (night,) = warehouse.nights(later)
        assert (night.complete, night.published) == (False, 0)
        assert "rare: the freshness of the data for 2001-04-11 failed" in str(night.missing)
    with pytest.raises(CheckError, match="the freshness of the data"):
        score(later, "news")
    with pytest.raises(UsageError, match="in the future"):
        score(date.today() + timedelta(days=9), "news", allow_stale=True)
    assert score_and_publish(later, domain="news", allow_stale=True).loads[0].state == "published"

    # A day is missing in the middle: the newest rows are a day older than they may be.
    for path in (home / "offline" / "interactions" / f"day={BEFORE}").iterdir():
        path.unlink()
    accept_files()
    with pytest.raises(
        CheckError, match=r"newest interaction known by then is of 2001-04-07 .* hours before"
    ):
        score(ON, "news")
    monkeypatch.setenv("MMLORA_SCORING__MAX_AGE_HOURS", "48")
    assert score(ON, "news")


def test_a_missing_bundle_of_one_domain_does_not_stop_others(champion: str, home: Path) -> None:
    other = _another(champion, 8192)
    promote(other, domain="rare", accept_below_baseline=True)
    shutil.rmtree(home / "registry" / "bundles" / other)

    result = _run("score", "--date", ON)

    assert result.exit_code == 1
    assert f"rare 2001-04-09: the champion of domain 'rare' is {other}, which isn't in" in result.output
    with open_workspace().open_warehouse() as warehouse:
        assert {found.domain_id for found in warehouse.publications()} == {"news", "sport"}
        (night,) = warehouse.nights()
        assert (night.domains, night.published, night.complete) == (3, 2, False)
        assert str(night.missing).startswith("rare: the champion of domain 'rare' is")
    rollback(domain="rare")
    score_and_publish(ON, domain="rare")
    (row,) = status().nights
    assert (row.complete, row.missing) == (True, None)
    assert _code("score", "--date", ON, "--model-version", "none-such") == 2


def test_rollback_goes_back_a_version_each_time(champion: str) -> None:
    first, second, third = champion, _another(champion, 8192), _another(champion, 2048)
    for version in (second, third):
        promote(version, accept_below_baseline=True)
    assert [rollback().model_version for _ in range(2)] == [second, first]
    with pytest.raises(UsageError, match="no earlier champion"):
        rollback()
    promote(third, accept_below_baseline=True)
    assert rollback().model_version == first, "what was rolled back is not gone back to"


def test_a_load_far_smaller_than_the_last_night_is_stopped(champion: str, tmp_path: Path) -> None:
    score_and_publish(BEFORE, domain="news")
    rows = _rows()
    pairs = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"user_id": ["u01", "u02"], "item_id": [101, 102]}), pairs)

    stopped = _run("score", "--date", ON, "--domain", "news", "--pairs", pairs)

    assert stopped.exit_code == 1, stopped.output
    assert f"size: 2 rows of 2 users; load {BEFORE}" in stopped.output
    assert f"has {rows} rows" in stopped.output and "--override size --reason TEXT" in stopped.output
    assert _code("score", "--date", ON, "--override", "size") == 2, "no reason"
    why = ("--override", "size", "--reason", "a trial of two users")
    passed = _run("score", "--date", ON, "--domain", "news", "--pairs", pairs, *why)
    assert passed.exit_code == 0, passed.output
    assert _rows(on=ON) == 2
    (entry,) = domain_status("news").ledger
    assert (entry.action, entry.why) == ("override", "size: a trial of two users")
    again = score_and_publish(BEFORE, domain="news", top_k=1).loads[0]
    assert again.state == "published", "fewer rows by another top_k are as they should be"


def test_a_dry_run_shows_the_changes_and_makes_none(champion: str, home: Path) -> None:
    score_and_publish(BEFORE, domain="news")
    before = status()
    (row,) = dry_run(ON, domain="news").loads
    assert row.state == "would publish" and row.before is not None and row.rows is not None
    assert row.before.score_date == BEFORE
    assert list((home / "staging").iterdir()) == []
    assert status() == before
    shown = _run("score", "--date", ON, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "nothing was published" in shown.output and "same_first_item" in shown.output

    load = score_and_publish(ON, domain="news").loads[0]
    found = compare("news")
    assert vars(row.rows) == pytest.approx(vars(found.rows))
    for told, others in (
        (found, {"domain_id", "before", "after"}),
        (row, {"domain_id", "score_date", "state"}),
    ):
        assert told.to_json().keys() >= vars(found.rows).keys() | others, "in one level"
        assert "rows" not in told.to_json()
    assert found.rows.rows_after == load.rows and found.after.load_id == load.load_id
    same = compare("news", on=ON, against=ON).rows
    assert (same.users_gone, same.users_new, same.same_first_item) == (0, 0, 1)
    assert (same.pairs_in_both, same.largest_score_change) == (load.rows, 0)
    staged = score(ON, "news", top_k=1)
    assert compare(load_id=staged).before.load_id == load.load_id
    assert "users_new" in _run("compare", "--domain", "news").output
    assert _code("compare") == 2


def test_a_night_is_unpublished_and_restored_by_hand(champion: str) -> None:
    score_and_publish(BEFORE, domain="news")
    first = score_and_publish(ON, domain="news").loads[0].load_id
    second = score_and_publish(ON, domain="news", top_k=2).loads[0].load_id
    taken = _run("unpublish", "--domain", "news", "--date", ON, "--reason", "wrong prices")
    assert taken.exit_code == 0 and "the newest published date is 2001-04-08" in taken.output
    with read_scores("news") as reader:
        assert set(reader.read_all()["score_date"].to_pylist()) == {BEFORE}
    assert unpublish("news", BEFORE, reason="too").latest is None
    result = json.loads(_run("restore", first, "--reason", "the first was right", "--json").output)
    assert (result["state"], result["latest"]) == ("published", str(ON))
    told = [(entry.action, entry.load_id) for entry in domain_status("news").ledger]
    assert told[0] == ("restore", first) and told[2] == ("unpublish", second)
    assert "the first was right" in _run("status", "--domain", "news").output
    with pytest.raises(UsageError, match="needs a text"):
        restore(first, reason=" ")


def test_backfill_refuses_plans_and_keeps_nights(
    champion: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="in the future"):
        backfill("news", ON, date.today() + timedelta(days=5))
    with pytest.raises(CheckError, match="2001-04-10 is the last date to score"):
        backfill("news", BEFORE, ON + timedelta(days=3))
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.loads() == [], "nothing was started"
    with caplog.at_level(logging.WARNING):
        score_and_publish(date(2001, 3, 20), domain="news")
    assert f"model {champion} was trained on what was known at {BEFORE}" in caplog.text
    first = date(2001, 3, 1)  # of the data: nobody is known before it
    plan = backfill("news", first, first + timedelta(days=1), plan_only=True).plan
    assert [row.action for row in plan] == ["refuse", "score"]
    done = _run("backfill", "--domain", "news", "--start", first, "--end", first + timedelta(days=1))
    assert done.exit_code == 1 and "no interaction from before 2001-03-01" in done.output
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.publication("news", first + timedelta(days=1)) is not None
    day = date(2001, 3, 20)
    for top_k, action in ((None, "keep"), (5, "keep"), (3, "score")):
        assert backfill("news", day, day, top_k=top_k, plan_only=True).plan[0].action == action


def test_a_publication_that_a_full_disk_stopped_is_published_again(
    champion: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("mmlora.warehouse.publish.staged_batches", full)
        stopped = _run("score", "--date", ON, "--domain", "news")
        assert stopped.exit_code == 75, stopped.output
        (load,) = domain_status("news").loads
        assert f"mmlora publish {load.load_id}" in stopped.output
        with pytest.raises(TransientError, match="No space left"):
            publish(load.load_id)
    assert load.state == "staged"
    assert _run("publish", load.load_id).exit_code == 0
    assert _rows() > 0
    gone = score(ON, "sport")
    shutil.rmtree(home / "staging" / gone)
    with pytest.raises(DataError, match="which are not the 300 audited ones"):
        publish(gone)


def test_broken_inputs_are_named(champion: str, home: Path) -> None:
    manifest = home / "registry" / "bundles" / champion / "manifest.json"
    manifest.write_text("{")
    with pytest.raises(ContractError, match=r"manifest.json is broken.*train again"):
        score(ON, "news")
    for name in ("domains.json", "ids.json"):
        path = home / "offline" / name
        text = path.read_text()
        path.write_text("{nonsense")
        with pytest.raises(DataError, match=rf"{name} has 9 bytes"):
            open_workspace().expected_domains()
        path.write_text(text)
    assert _code("score", "--date", "0001-01-01") == 2
    assert _code("validate", "--as-of", "9999-12-31") == 2
