"""The policy of candidates from the settings to what is kept with a load."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import CheckError, UsageError
from mmlora.nights.domains import scoring_domains
from mmlora.nights.load import score
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.outcomes import LoadOutcome
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)


def _set(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        monkeypatch.setenv(f"MMLORA_CANDIDATES__{name.upper()}", text)


def _load(domain: str = "news") -> LoadOutcome:
    (load,) = score_and_publish(ON, domain=domain).loads
    return load


def _best() -> set[tuple[Any, Any]]:
    """The published pairs, each user's five best."""
    with read_scores("news") as reader:
        return {(row["user_id"], row["item_id"]) for row in reader.read_all().to_pylist()}


def _why(day: date) -> str:
    return str(backfill("news", day, day, plan_only=True).plan[0].reason)


def test_removed_candidates_are_stored_and_shown(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = _load()
    kept = load.candidates
    assert kept.policy["exclude"] == "clicked" and kept.recall is None
    (part,) = (part for part in kept.removed if part.what == "pairs")
    assert part.reason == "clicked in the domain in 30 days"
    assert load.pairs == load.users * load.items - part.count
    (published,) = (row for row in status().domains if row.domain_id == "news")
    assert published.candidates == kept

    assert _why(ON) == ""
    _set(monkeypatch, exclude="none", domains={"news": {"exclude_days": 7}})
    assert _load("sport").candidates.policy["exclude"] == "none"
    assert _why(ON) == "exclude was clicked, is none; exclude_days was 30, is unset; " + (
        "exclude_in was domain, is unset"
    )
    _set(monkeypatch, domains={"news": {"exclude": "clicked", "exclude_days": 7}})
    assert _why(ON) == "exclude_days was 30, is 7"
    backfill("news", ON, ON)
    assert _why(ON) == ""


def test_retrieval_keeps_the_best_and_reports_its_recall(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = _load()
    for items in (40, 0):  # all there are
        _set(monkeypatch, retrieval="two_tower", retrieval_items=items)
        same = _load()
        with open_workspace().open_warehouse() as warehouse:
            assert warehouse.load(same.load_id).same_rows_as(warehouse.load(every.load_id))
    best, recalls = _best(), {}
    for name in ("two_tower", "popularity"):
        _set(monkeypatch, retrieval=name, retrieval_items=20)
        load = _load()
        assert (load.state, load.rows, load.items) == ("published", every.rows, every.items)
        (part,) = (part for part in load.candidates.removed if "best 20 by" in part.reason)
        assert load.pairs == every.pairs - part.count
        recall = load.candidates.recall
        assert recall.share == pytest.approx(load.pairs / every.pairs, abs=0.03), "all are in the 100"
        recalls[name] = len(_best() & best) / len(best)
    assert 0.5 < recalls["popularity"] < recalls["two_tower"]
    assert recalls["two_tower"] > 0.95
    with pytest.raises(UsageError, match="retrieval_items is 20, but 100 rows are kept per user"):
        score(ON, "news", top_k=100)


def test_pairs_of_the_settings_are_scored_by_the_nightly_tasks(
    trained_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = {"user_id": ["u01", "u01", "u99"], "item_id": [101, 999, 101], "domain_id": ["news"] * 3}
    pq.write_table(pa.table(pairs), tmp_path / f"pairs-{ON}.parquet")
    _set(monkeypatch, pairs=str(tmp_path / "pairs-{date}.parquet"), domains={"sport": {"items": "domain"}})
    assert scoring_domains(ON) == ["news", "sport"], "the table names no other, and sport has its own policy"
    result = score_and_publish(ON)
    news, sport = result.loads
    assert [row.domain_id for row in result.skipped] == ["rare"]
    assert (news.pairs, news.rows) == (1, 1) and sport.pairs > 100
    named = [(part.what, part.first) for part in news.candidates.unknown]
    assert named == [("users", ("u99",)), ("items", (999,))]

    _set(monkeypatch, pairs="SELECT 'u99' AS user_id, 101 AS item_id")
    with pytest.raises(CheckError, match=r"nobody to score; not scored: 1 pairs .*unknown users: u99"):
        score(ON, "news")


def test_settings_of_an_unknown_domain_are_refused(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, domains={"new": {"exclude": "none"}})
    with pytest.raises(UsageError, match=r"candidates.domains.new: there is no such domain"):
        score(ON, "news")
    monkeypatch.setenv("MMLORA_CHECKS__DOMAINS", '["new"]')
    score(ON, "news")
