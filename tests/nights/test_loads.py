"""Loads on the made-up workspace: own pairs, nobody to score, and processes that die."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import CheckError, DataError, UsageError
from mmlora.load_checks import Resumed
from mmlora.nights.load import score
from mmlora.pipeline.publish import publish
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.scoring import staged_shards
from mmlora.warehouse.loads import Load
from mmlora.workspace import open_workspace
from tests.conftest import published

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


def test_a_pair_table_given_by_the_user_is_scored(trained_workspace: Path, tmp_path: Path) -> None:
    pairs = {"user_id": ["u01", "u01", "u02"], "item_id": [101, 102, 101]}
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    load = score_and_publish(ON, domain="news", pairs=str(tmp_path / "pairs.parquet")).loads[0]
    assert (load.pairs, load.rows) == (3, 3)
    found = {(row["user_id"], row["item_id"]) for row in published()}
    assert found == {("u01", 101), ("u01", 102), ("u02", 101)}

    of_news = pa.table({**pairs, "domain_id": ["news"] * 3})
    pq.write_table(of_news, tmp_path / "of_news.parquet")
    result = score_and_publish(ON, pairs=str(tmp_path / "of_news.parquet"))
    assert [(load.domain_id, load.state) for load in result.loads] == [("news", "published")]
    assert {row.domain_id for row in result.skipped} == {"rare", "sport"}
    assert all("no rows in" in row.reason for row in result.skipped)
    load = score_and_publish(ON, domain="sport", pairs=str(tmp_path / "of_news.parquet")).loads[0]
    assert "has no rows of the domain" in load.reason
    strange = of_news.set_column(2, "domain_id", pa.array(["news", "new", "news"]))
    pq.write_table(strange, tmp_path / "strange.parquet")
    with pytest.raises(DataError, match="'new' is not a domain; the domains are news, rare, sport"):
        score_and_publish(ON, pairs=str(tmp_path / "strange.parquet"))


def test_a_load_without_users_does_not_replace_published_scores(trained_workspace: Path) -> None:
    score_and_publish(ON, domain="news")
    rows = published()
    later = date(2002, 1, 1)  # long after the last interaction
    with pytest.raises(CheckError, match="absent"):
        score_and_publish(later, allow_stale=True)
    load = score_and_publish(later, domain="news", allow_stale=True).loads[0]
    assert (load.state, load.exit_code) == ("rejected", 1)
    assert [row.state for row in status().troubles] == ["rejected"], "one word for it"
    assert "nobody to score" in load.reason
    assert published() == rows
    with pytest.raises(UsageError, match="in the future"):
        score(date.today() + timedelta(days=9), "news")


def test_a_load_is_alive_as_long_as_its_process(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_SCORING__HEARTBEAT_SECONDS", "0.05")
    silent_for = []

    def look(what: str, done: int, total: int) -> None:
        if not silent_for:
            time.sleep(0.5)  # busy with something that reports nothing
            with open_workspace().open_warehouse() as warehouse:
                silent_for.append(warehouse.stale_loads(timedelta(seconds=0.4)))

    score(ON, "news", progress=look)
    assert silent_for == [[]]


def test_scoring_again_after_a_kill_during_scoring(
    trained_on_each_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_and_publish(ON, domain="sport", top_k=3)
    before, undisturbed = _key(published("sport")), _load(score(ON, "sport"))
    script = (
        "import os, signal\n"
        "from datetime import date\n"
        "from mmlora.nights.load import score\n"
        "from mmlora.scoring import staged_shards\n"
        "staged_shards.SHARD_PAIRS = 400\n"
        "def die(what, done, total):\n"
        "    if what.startswith('score') and done * 2 > total:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"score(date({ON.year}, {ON.month}, {ON.day}), 'sport', progress=die)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    assert _key(published("sport")) == before, "readers still see the load before"
    with open_workspace().open_warehouse() as warehouse:
        (killed,) = warehouse.loads(states=("running",))

    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 400)
    counted = []
    (load,) = score_and_publish(ON, domain="sport", progress=lambda *said: counted.append(said)).loads
    assert (load.state, load.resumed) == ("published", Resumed(shards=6, staged=3))
    assert counted[-1][2] == load.items * 30, "half of the users were scored"
    assert _load(load.load_id).same_rows_as(undisturbed)
    assert "takes its shards over" in str(_load(killed.load_id).reason)
    assert not (trained_on_each_warehouse / "staging" / killed.load_id).exists()


def test_scoring_again_after_a_kill_before_publication(trained_on_each_warehouse: Path) -> None:
    load_id = score(ON, "sport")
    with pytest.raises(UsageError, match="nothing is published"):
        published("sport")
    publish(load_id)
    rows = published("sport")
    publish(load_id)
    assert published("sport") == rows, "publishing again changes nothing"
    assert not (trained_on_each_warehouse / "staging" / load_id).exists()


def _load(load_id: str) -> Load:
    with open_workspace().open_warehouse() as warehouse:
        return warehouse.load(load_id)


def _key(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["user_id"], row["item_id"], row["position"], row["score"]) for row in rows]
