"""A published score is explained by parts that give the same score."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmlora.errors import UsageError
from mmlora.pipeline.explain import explain
from mmlora.pipeline.migrate import migrate_warehouse
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import published, use_workspace

TRAINED, NIGHT = date(2001, 4, 8), date(2001, 4, 9)


@pytest.fixture(autouse=True)
def workspace(night_of_experts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_workspace(monkeypatch, night_of_experts)


def test_the_score_is_the_published_one() -> None:
    rows = published("news", NIGHT)
    for row in (rows[0], rows[14], rows[100], rows[-1]):
        found = explain("news", row["user_id"], str(row["item_id"]), on=NIGHT)
        assert (found.published_score, found.position) == (row["score"], row["position"])
        assert found.score == pytest.approx(row["score"], abs=1e-6)
        assert found.logit == pytest.approx(sum(part.value for part in found.parts))
        assert found.load_id == row["load_id"]
        assert found.checks and all(check.passed for check in found.checks)


def test_features_are_those_of_the_score_date() -> None:
    row = published("news", NIGHT)[0]
    found = explain("news", row["user_id"], str(row["item_id"]))
    assert found.features["user_profile__city"] in ("oslo", "bergen")
    assert (found.features["user_id"], found.features["item_id"]) == (row["user_id"], row["item_id"])


def test_every_feature_has_the_times_of_the_row_that_it_comes_from() -> None:
    row = published("news", NIGHT)[0]
    found = explain("news", row["user_id"], str(row["item_id"]), on=NIGHT)
    times = {source.view: source for source in found.sources}
    assert {name.split("__")[0] for name in found.features} - set(times) == {
        "user_id",
        "item_id",
        "domain_id",
    }
    midnight = datetime(NIGHT.year, NIGHT.month, NIGHT.day, tzinfo=UTC)
    for source in found.sources:
        assert source.event_timestamp and source.known_at
        assert source.event_timestamp <= midnight and source.known_at <= midnight, source
    activity, profile = times["domain_activity"], times["user_profile"]
    assert activity.event_timestamp == midnight, "it has rows every day"
    assert profile.event_timestamp and profile.event_timestamp < midnight - timedelta(days=30)


def test_a_query_finds_the_lineage_that_is_explained() -> None:
    row = published("news", NIGHT)[0]
    found = explain("news", row["user_id"], str(row["item_id"]), on=NIGHT)
    query = (
        "SELECT bundle_hash, data_fingerprint, contract_hash, model_code_version, code_version, model_as_of "
        f"FROM published_lineage WHERE load_id = '{row['load_id']}'"
    )
    expected = (found.bundle_hash, found.data_fingerprint, found.contract_hash, found.model_code_version)
    with open_workspace().open_warehouse() as warehouse, warehouse.database.writing() as connection:
        assert tuple(connection.exec_driver_sql(query).one()) == (
            *expected,
            found.code_version,
            str(TRAINED),
        )
        connection.exec_driver_sql("DELETE FROM score_models")  # as in a warehouse of before they were kept
    migrate_warehouse()
    with open_workspace().open_warehouse() as warehouse, warehouse.database.reading() as connection:
        assert tuple(connection.exec_driver_sql(query).one())[:4] == expected


def test_a_pair_that_no_list_has_is_explained_too() -> None:
    rows = published("news", NIGHT)
    listed = {row["item_id"] for row in rows if row["user_id"] == rows[0]["user_id"]}
    other = next(item for item in range(100, 140) if item not in listed)
    found = explain("news", rows[0]["user_id"], str(other))
    assert (found.published_score, found.position) == (None, None)
    assert 0 < found.score < 1


def test_the_command_prints_parts_and_features() -> None:
    row = published("news", NIGHT)[0]
    pair = ["--domain", "news", "--user", row["user_id"], "--item", str(row["item_id"])]
    shown = CliRunner().invoke(app, ["explain", *pair]).output
    assert "at position 1" in shown and "parts of the logit" in shown and "user_profile__age" in shown
    assert "known since" in shown and "training data" in shown
    raw = json.loads(CliRunner().invoke(app, ["explain", *pair, "--json"]).stdout)
    assert raw["position"] == 1 and raw["parts"]


def test_what_was_not_published_has_no_explanation() -> None:
    with pytest.raises(UsageError, match="nothing is published for domain 'sport'"):
        explain("sport", "u01", "100")
    with pytest.raises(UsageError, match="item 'x': item ids are whole numbers"):
        explain("news", "u01", "x")
