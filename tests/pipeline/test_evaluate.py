"""Published nights are measured by the clicks that came after them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from typer.testing import CliRunner

from mmlora.errors import UsageError
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.evaluate import PREVIOUS, evaluate, faults_of
from mmlora.pipeline.promote import promote
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import domain_status
from mmlora.pipeline.train import train
from mmlora.settings import QualitySettings
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import MadeUp, published

NIGHT = date(2001, 4, 9)  # the last day of the interactions; the model is of the day before


@pytest.fixture
def night(trained_workspace: Path) -> Path:
    score_and_publish(NIGHT, domain="news", top_k=20)
    return trained_workspace


def test_figures_are_kept_on_each_warehouse(trained_on_each_warehouse: Path) -> None:
    score_and_publish(NIGHT, domain="news", top_k=20)
    for _ in range(2):  # the second time they replace what was kept
        (quality,) = evaluate().nights
        assert domain_status("news").quality == (quality,)


def _clicked(made_up: MadeUp, domain: str = "news") -> list[tuple[int, float | None]]:
    """Return label and published score of each interaction of the night, found by plain look-ups."""
    scores = {(row["user_id"], row["item_id"]): row["score"] for row in published(domain, NIGHT)}
    return [
        (row["label"], scores.get((row["user_id"], row["item_id"])))
        for row in pq.read_table(made_up.interactions).to_pylist()
        if row["event_timestamp"].date() == NIGHT and row["domain_id"] == domain
    ]


def test_the_figures_are_those_of_the_published_pairs(night: Path, made_up: MadeUp) -> None:
    (quality,) = evaluate(domains=["news"]).nights
    rows = _clicked(made_up)
    label, score = zip(*(row for row in rows if row[1] is not None), strict=True)
    assert (quality.impressions, quality.scored, quality.clicks) == (len(rows), len(label), sum(label))
    assert 0 < quality.scored < quality.impressions  # lists of 20 of 40 items
    assert quality.auc == pytest.approx(roc_auc_score(label, score))
    assert quality.logloss == pytest.approx(log_loss(label, score), rel=1e-5)
    assert quality.calibration == pytest.approx(sum(score) / sum(label), rel=1e-5)
    assert domain_status("news").quality == (quality,)


def test_labels_that_come_later_replace_the_figures(night: Path, made_up: MadeUp, tmp_path: Path) -> None:
    (before,) = evaluate().nights
    row = published("news", NIGHT)[0]
    late = pq.read_table(made_up.interactions).slice(0, 1).to_pylist()[0]
    late |= {name: row[name] for name in ("user_id", "item_id")}
    late |= {
        "domain_id": "news",
        "label": 1,
        "event_timestamp": late["event_timestamp"].replace(month=4, day=9),
    }
    pq.write_table(
        pa.Table.from_pylist([late], pq.read_schema(made_up.interactions)), tmp_path / "late.parquet"
    )
    import_tables(tmp_path / "late.parquet")
    (after,) = evaluate().nights
    assert (after.scored, after.clicks) == (before.scored + 1, before.clicks + 1)
    assert domain_status("news").quality == (after,)


def test_the_champion_before_scores_the_same_pairs(night: Path) -> None:
    with open_workspace().open_warehouse() as warehouse:
        former = str(warehouse.current("champion"))
    other = str(train(date(2001, 4, 8), features="ids", adaptation="none", seed=1).model_version)
    promote(other, accept_below_baseline=True)
    score_and_publish(NIGHT, domain="news", top_k=20)
    loads = len(_loads())
    (quality,) = evaluate(against=PREVIOUS).nights
    assert (quality.model_version, quality.against) == (other, former)
    assert quality.auc_gain is not None and quality.auc_gain_low is not None
    assert quality.auc_gain_low <= quality.auc_gain <= (quality.auc_gain_high or 0)
    assert len(_loads()) == loads  # the warehouse has no trace of the comparison

    (same,) = evaluate(against=other).nights  # against itself, there is no difference
    assert (same.auc_gain, same.auc_gain_low, same.auc_gain_high) == (0, 0, 0)


def _loads() -> list[str]:
    with open_workspace().open_warehouse() as warehouse:
        return [load.load_id for load in warehouse.loads()]


def test_a_first_champion_has_nobody_before(night: Path) -> None:
    result = evaluate(against=PREVIOUS)
    assert result.nights[0].against is None
    assert "no other model was champion before" in result.notes[0]


def test_a_night_without_labels_is_counted(trained_workspace: Path) -> None:
    score_and_publish(date(2001, 4, 11), domain="news", allow_stale=True)
    result = evaluate()
    assert (result.nights, result.unlabelled) == ((), 1)


def test_what_is_not_published_cannot_be_measured(night: Path) -> None:
    with pytest.raises(UsageError, match="nothing is published for sport"):
        evaluate(domains=["sport"])


def test_figures_outside_of_the_limits_are_named(night: Path) -> None:
    (quality,) = evaluate().nights
    limits = QualitySettings(min_clicks=10)
    good = replace(quality, clicks=10, auc=0.8, calibration=1.1)
    assert not list(faults_of(good, limits))
    assert [fault.split(": ")[1] for fault in faults_of(replace(good, auc=0.4), limits)] == [
        "auc 0.4000 is below 0.5"
    ]
    assert list(faults_of(replace(good, calibration=2.5), limits))
    assert list(faults_of(replace(good, calibration=0.4), limits))
    assert list(faults_of(replace(good, against="m0", auc_gain=-0.1, auc_gain_high=-0.01), limits))
    assert not list(faults_of(replace(good, auc=0.4, clicks=9), limits))


def test_the_command_ends_with_1_where_a_night_is_outside_of_the_limits(
    night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_QUALITY__MIN_CLICKS", "1")
    done = CliRunner().invoke(app, ["evaluate", "--published"])
    assert "published nights and what users clicked" in done.output
    assert "quality of published nights" in CliRunner().invoke(app, ["status", "--domain", "news"]).output
    monkeypatch.setenv("MMLORA_QUALITY__MIN_AUC", "1")
    failed = CliRunner().invoke(app, ["evaluate", "--domain", "news"])
    assert failed.exit_code == 1 and "is below 1" in str(failed.exception)
