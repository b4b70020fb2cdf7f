"""Training runs on the made-up workspace: what they share, what is refused, who becomes champion."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from mmlora.errors import UsageError
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.pipeline.train import train
from mmlora.runs.registering import register
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


def test_what_cannot_be_trained_is_refused(made_up_workspace: Path) -> None:
    with pytest.raises(UsageError, match="carry test labels"):
        train(BEFORE, split="random", features="all")
    with pytest.raises(UsageError, match="rank"):
        train(BEFORE, rank=64, features="ids")
    with pytest.raises(UsageError, match="go together"):
        train(BEFORE, split="file")
    assert not (made_up_workspace / "runs" / "steps").exists(), "nothing was trained"


def test_runs_share_the_steps_that_they_have_in_common(made_up_workspace: Path) -> None:
    first = train(BEFORE, features="ids", adaptation="moe_mlora").to_json()
    steps = len(list((made_up_workspace / "runs" / "steps").glob("*.json")))
    second = train(BEFORE, features="ids", adaptation="mlora").to_json()
    assert len(list((made_up_workspace / "runs" / "steps").glob("*.json"))) == steps
    assert second["phases"] == first["phases"][:-1]
    assert second["model_version"] != first["model_version"]


def test_a_run_of_one_domains_expert_is_a_run_of_its_own(made_up_workspace: Path) -> None:
    alone = train(BEFORE, features="ids", domain="news").to_json()
    every = train(BEFORE, features="ids").to_json()
    assert [row["domain"] for row in alone["phases"]] == ["all", "all", "news", "all"]
    assert [row["domain"] for row in every["phases"]] == ["all", "all", "news", "sport", "all"]
    assert alone["model_version"] != every["model_version"]
    with pytest.raises(UsageError, match="trains no expert"):
        train(BEFORE, features="ids", domain="rare")


def test_registering_again_after_a_failure_decides_once(made_up_workspace: Path) -> None:
    trained = train(BEFORE, features="ids", adaptation="none").to_json()
    (made_up_workspace / "runs" / trained["run_id"] / "registered.json").unlink()  # killed before the end
    assert register(trained["run_id"]) == trained["model_version"]
    with open_workspace().open_warehouse() as warehouse:
        assert len(warehouse.promotions("champion")) == 1
        assert warehouse.promotions("challenger") == []


def test_challenger_promotion_and_rollback(made_up_workspace: Path) -> None:
    first = train(BEFORE, adaptation="none", features="ids").model_version
    second = train(BEFORE, adaptation="mlora", features="profiles", accept_below_baseline=True).to_json()
    assert second["alias"] == "challenger"
    accepted = promote(second["model_version"], domain="news", accept_below_baseline=True)
    assert accepted.before == first
    loads = score_and_publish(ON).loads
    assert {row.domain_id: row.model_version for row in loads} == {
        "news": second["model_version"],
        "rare": first,
        "sport": first,
    }
    assert rollback(domain="news").model_version == first
    models = {row.model_version: row.alias for row in status().models}
    assert models == {first: "champion", second["model_version"]: "challenger"}
    assert open_workspace().tracking.aliases() == {"champion": first, "challenger": second["model_version"]}
