"""A model's AUC is lost with the features that it rests on, and only with those."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmlora.errors import UsageError
from mmlora.pipeline.importance import feature_groups, importance
from mmlora.registry.manifest import Mixture
from mmlora.schema import FeatureContract, FeatureField
from mmlora.workspace import open_workspace
from mmlora_cli.main import app


@pytest.fixture(autouse=True)
def workspace(trained_workspace: Path) -> None:
    """The workspace of a model that reads the ids alone."""


def test_features_are_measured_on_test_rows_by_domain(trained: tuple[Path, str]) -> None:
    found = importance(permutations=2)
    assert found.model_version == trained[1] and "test rows" in found.source
    names = [each.feature for each in found.features]
    assert set(names) == {"user_id", "item_id"}, "the domain is the same in all of its rows"
    losses = [each.wauc.value for each in found.features if each.wauc.value is not None]
    assert losses == sorted(losses, reverse=True) and len(losses) == len(names)
    for each in found.features:
        assert each.wauc.low is not None and each.wauc.high is not None
        assert each.wauc.low <= each.wauc.value <= each.wauc.high  # type: ignore[operator]
        assert {"news", "sport"} <= set(each.by_domain)
    assert importance(permutations=2) == found, "the same call has the same result"


def test_one_domain_has_its_own_rows(trained: tuple[Path, str]) -> None:
    every, news = importance(permutations=1), importance(domain="news", permutations=1)
    assert 0 < news.rows < every.rows
    assert all(set(each.by_domain) == {"news"} for each in news.features)


def test_a_version_without_a_run_is_measured_on_later_rows(trained: tuple[Path, str]) -> None:
    workspace = open_workspace()
    manifest = workspace.bundles.load(trained[1]).manifest
    mixture = Mixture("rare", (), 0.0, manifest.as_of, 10, None, "a test")
    composed = replace(manifest.with_mixture(mixture), base=trained[1])
    found = importance(model_version=workspace.bundles.save(composed), permutations=1)
    assert found.source.startswith("newer rows") and found.rows and len(found.features[0].by_domain) > 1

    last = replace(composed.mixtures[0], as_of=date(2001, 6, 1))  # it has learned from all of its rows
    fewer = importance(model_version=workspace.bundles.save(composed.with_mixture(last)), permutations=1)
    assert set(found.features[0].by_domain) - set(fewer.features[0].by_domain) == {"rare"}
    newer = workspace.bundles.save(replace(manifest, seen_until=None, as_of=date(2001, 6, 1)))
    with pytest.raises(UsageError, match="no interactions with known labels"):
        importance(model_version=newer, permutations=1)


def test_the_command_prints_features_and_intervals(trained: tuple[Path, str]) -> None:
    options = ["importance", "--permutations", "1", "--rows", "200"]
    shown = CliRunner().invoke(app, options).output
    assert "features by importance" in shown and " to " in shown and trained[1] in shown
    raw = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    assert raw["rows"] == 200 and raw["features"][0]["by_domain"]


def test_lists_move_with_their_weights_and_histories_as_a_whole() -> None:
    user = ("user_id",)
    fields = (
        FeatureField("user_id", "", user, "INT64", "categorical"),
        FeatureField("domain_id", "", ("domain_id",), "STRING", "categorical"),
        FeatureField("liked", "taste", user, "STRING_LIST", "bag"),
        FeatureField("liked_ctr", "taste", user, "FLOAT_LIST", "weights", (("weights", "liked"),)),
        FeatureField("items", "user_history", user, "INT64_LIST", "history"),
        FeatureField("clicks", "user_history", user, "INT64_LIST", "counts"),
        FeatureField("age", "user_profile", user, "INT64", "dense"),
    )
    names = [field.name for field in fields if field.name != "age"]
    assert feature_groups(FeatureContract("", fields), names) == {
        "user_id": ["user_id"],
        "liked": ["liked", "liked_ctr"],
        "user_history": ["items", "clicks"],
    }
