"""Baselines are trained once for all runs on the same rows."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mmlora.judging import contest
from mmlora.pipeline.train import train
from mmlora.runs.baselines import train_baselines
from mmlora.runs.steps import prepare

AS_OF = date(2001, 4, 8)
PLAIN: dict[str, Any] = {"features": "ids", "adaptation": "none", "refit": False}


def _baselines(trained: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in trained["judgement"]["contenders"] if row["name"] not in ("model", "champion")]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a baseline is trained."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a baseline was trained")

    monkeypatch.setattr(contest, "train_baselines", refused)


def test_another_run_on_the_same_rows_finds_its_baselines(
    made_up_workspace: Path, request: pytest.FixtureRequest
) -> None:
    first = train(AS_OF, **PLAIN, learning_rate=0.01)
    request.getfixturevalue("no_training")
    second = train(AS_OF, **PLAIN, learning_rate=0.001)
    assert first["run_id"] != second["run_id"]
    assert [row["wauc"] for row in _baselines(second)] == [row["wauc"] for row in _baselines(first)]


def test_other_rows_have_baselines_of_their_own(made_up_workspace: Path) -> None:
    first, second = train(AS_OF, **PLAIN), train(AS_OF, **PLAIN, split="random")
    assert [row["wauc"] for row in _baselines(first)] != [row["wauc"] for row in _baselines(second)]


def test_the_step_leaves_what_the_judge_finds(
    made_up_workspace: Path, request: pytest.FixtureRequest
) -> None:
    run_id = train_baselines(prepare(AS_OF, **PLAIN))
    request.getfixturevalue("no_training")
    trained = train(AS_OF, **PLAIN)
    assert trained["run_id"] == run_id
    assert len(_baselines(trained)) == 3 and all("wauc" in row for row in _baselines(trained))
