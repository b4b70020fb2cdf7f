"""A load that a check blocks: what readers keep, what is stored, and how it is overridden."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mmlora.check_rules import RULE_NAMES
from mmlora.errors import CheckError, UsageError
from mmlora.nights import score_checks
from mmlora.nights.load import score
from mmlora.nights.overrides import Overrides
from mmlora.nights.score_checks import _score_pairs
from mmlora.pipeline.promote import promote
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import domain_status
from mmlora.pipeline.validate import explain_checks
from mmlora.workspace import open_workspace
from tests.conftest import published

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


def _with_calibration(version: str, shift: float) -> str:
    """Promote a copy of a model whose scores are shifted."""
    workspace = open_workspace()
    manifest = workspace.bundles.load(version).manifest
    stored = dict(workspace.parts.json(manifest.calibration))
    stored["shift"] += shift
    stored["domain_shifts"] = [each + shift for each in stored["domain_shifts"]]
    changed = workspace.bundles.save(replace(manifest, calibration=workspace.parts.put_json(stored)))
    promote(changed, accept_below_baseline=True)
    return changed


def test_a_check_blocks_one_domain_until_it_is_overridden(
    trained: tuple[Path, str], trained_workspace: Path
) -> None:
    assert [load.state for load in score_and_publish(BEFORE).loads] == ["published"] * 3
    _with_calibration(trained[1], -4.0)

    with pytest.raises(CheckError, match=r"mean_score: .*scores sum to .*at most 2") as caught:
        score(ON, "news")
    assert "--override mean_score --reason TEXT" in str(caught.value)
    assert {row["score_date"] for row in published("news")} == {BEFORE}
    (failed,) = (
        check
        for check in explain_checks(ON)
        if not check.passed and check.domain_id == "news" and check.severity == "block"
    )
    assert (failed.check, failed.stage, failed.threshold, failed.owner) == (
        *("mean_score", "scores"),
        *("at most 2", "model"),
    )
    assert failed.figure is not None and failed.figure > 2

    outcome = score_and_publish(ON, domain="news", override=("mean_score",), reason="a trial").loads[0]
    assert outcome.state == "published"
    (entry,) = domain_status("news").ledger
    assert (entry.action, entry.why) == ("override", "mean_score: a trial")
    by_name = {check.check: check for check in explain_checks(ON) if check.domain_id == "news"}
    assert by_name["mean_score"].overridden == "a trial"
    assert set(RULE_NAMES) - set(by_name) == set()
    assert by_name["score_shift"].severity == "warn", "another model scored the last night"


def test_the_pairs_that_are_checked_have_the_scores_of_the_load(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def spy(*arguments: Any) -> Any:
        calls.append(arguments)
        return check_shown(*arguments)

    check_shown = score_checks._check_shown
    monkeypatch.setattr(score_checks, "_check_shown", spy)
    load_id = score(ON, "news", top_k=0)
    ((_, work, candidates, users, *_),) = calls
    staged = pa.concat_tables(
        [pq.read_table(path) for path in open_workspace().staging_folder(load_id).glob("part-*.parquet")]
    )
    chosen = np.random.default_rng(3).integers(0, staged.num_rows, 300)
    rows = staged.take(np.concatenate([chosen, chosen[:20]]))  # a pair may have been shown twice
    places = {
        "user_id": pc.index_in(rows["user_id"], value_set=candidates.users),
        "item_id": pc.index_in(rows["item_id"], value_set=candidates.items),
    }
    scores = _score_pairs(work, candidates, users, pa.table(places), threads=1)
    assert scores.tolist() == rows["score"].to_pylist()


def test_scores_for_sampled_non_clicks_are_checked_by_the_odds_of_the_sample(
    trained: tuple[Path, str], trained_workspace: Path
) -> None:
    """A quarter of the non-clicks is imported, so scores are lower than the rate of clicks among rows."""
    score_and_publish(ON, domain="news", top_k=0)
    figure, rows = _figure("mean_score"), published("news")
    workspace = open_workspace()
    bundle = workspace.bundles.load(trained[1])
    part = workspace.parts.put_json(replace(bundle.calibration, negatives=4.0).to_json())
    promote(workspace.bundles.save(replace(bundle.manifest, calibration=part)), accept_below_baseline=True)
    (load,) = score_and_publish(ON, domain="news", top_k=0).loads
    assert load.state == "published"
    assert _figure("mean_score") == figure
    for before, after in zip(rows, published("news"), strict=True):
        odds = [row["score"] / (1 - row["score"]) for row in (before, after)]
        assert odds[1] == pytest.approx(odds[0] / 4, rel=1e-4)


def _figure(name: str) -> float:
    (check,) = (c for c in explain_checks(ON) if (c.check, c.domain_id) == (name, "news"))
    assert check.figure is not None
    return check.figure


def test_a_rule_that_only_warns_blocks_nothing(
    trained: tuple[Path, str], trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_CHECKS__RULES", '{"mean_score": {"severity": "warn"}}')
    _with_calibration(trained[1], -4.0)
    assert score_and_publish(ON, domain="news").loads[0].state == "published"
    found = {check.check: check for check in explain_checks(ON) if check.domain_id == "news"}
    assert (found["mean_score"].passed, found["mean_score"].severity) == (False, "warn")
    first = ("score_shift", "rank_overlap", "size", "candidate_items")
    assert all(found[name].passed and found[name].figure is None for name in first), (
        "there is no earlier night"
    )


def test_overrides_need_a_known_check_and_a_reason() -> None:
    with pytest.raises(UsageError, match="there is no check 'sizes' to override: valid are wrong_type"):
        Overrides.of(("sizes",), "typo")
    with pytest.raises(UsageError, match="needs --reason"):
        Overrides.of(("size",), " ")
    with pytest.raises(UsageError, match="needs --override"):
        Overrides.of((), "why")
    assert Overrides.of(None, None) == Overrides()


def _test_figures(**domains: tuple[float, int, int]) -> Any:
    """Return a stand-in for a bundle whose test had these aucs, clicks and rows."""
    by_domain = {
        name: {"auc": auc, "positives": clicks, "rows": rows} for name, (auc, clicks, rows) in domains.items()
    }
    return SimpleNamespace(manifest=SimpleNamespace(metrics={"test": {"by_domain": by_domain}}))


@pytest.mark.parametrize(
    ("domains", "caught"),
    [
        ({"mt": (1.0, 1, 14), "us": (0.8, 92, 3526)}, []),  # a few clicks, all ranked first by chance
        ({"mt": (1.0, 3, 40), "us": (0.93, 92, 3526)}, []),
        ({"mt": (1.0, 1, 14), "us": (1.0, 92, 3526), "de": (1.0, 16, 1833)}, ["mt", "us", "de"]),
        ({"us": (0.8, 92, 3526), "de": (0.999, 200, 9000)}, ["de"]),  # a leak in one domain
    ],
)
def test_an_auc_that_is_too_good_is_told_from_one_of_few_clicks(
    domains: dict[str, tuple[float, int, int]], caught: list[str]
) -> None:
    tested = score_checks._tested(_test_figures(**domains))
    assert [name for name in domains if score_checks.least_test_auc(tested, name) > 0.97] == caught
