"""The verbs in a terminal session: import, build, train, score, read; tables, CSV, Parquet and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mmlora.judging.judgement import nothing_judged
from mmlora.metrics import Metrics
from mmlora.pipeline.training_summary import TrainingSummary
from mmlora.runs.evaluation import PhaseMetrics
from mmlora.workspace import open_workspace
from mmlora_cli.judgement import print_judgement
from mmlora_cli.main import app
from mmlora_cli.operate import write_rows
from mmlora_cli.train import print_training


def _run(*arguments: Any) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_terminal_session(made_up_workspace: Path, tmp_path: Path) -> None:
    assert "user_activity" in _run("features", "build", "--through", "2001-04-08").output
    assert "rich" in _run("validate", "--as-of", "2001-04-08").output
    trained = _run("train", "--as-of", "2001-04-08", "--features", "ids", "--backbone", "deepfm")
    assert "is the champion" in trained.output
    assert "the model beside its baselines, on the same" in trained.output
    assert "logistic regression" in trained.output and "95% interval" in trained.output
    scored = json.loads(_run("score", "--date", "2001-04-09", "--top-k", "3", "--json").stdout)
    assert [load["state"] for load in scored["loads"]] == ["published"] * 3
    shown = _run("status").output
    assert "2001-04-09" in shown
    assert "news: not candidates: " in shown and "pairs (clicked in the domain in 30 days)" in shown

    one_user = _run("read", "--domain", "news", "--user", "u01", "--format", "csv").stdout
    assert csv.read_csv(io.BytesIO(one_user.encode())).column("position").to_pylist() == [1, 2, 3]
    rows = json.loads(_run("read", "--domain", "news", "--user", "u01", "--json").stdout)
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert {row["score_date"] for row in rows} == {"2001-04-09"}
    assert json.loads(_run("read", "--domain", "news", "--user", "nobody", "--json").stdout) == []
    path = tmp_path / "scores.parquet"
    _run("read", "--domain", "news", "--format", "parquet", "--output", path)
    news = next(load for load in scored["loads"] if load["domain_id"] == "news")
    assert pq.read_metadata(path).num_rows == news["rows"]

    plan = _run("backfill", "--domain", "rare", "--start", "2001-04-07", "--end", "2001-04-09", "--plan")
    assert "published with top_k 3" in plan.output, "the setting asks for another"
    plan = _run(
        "backfill",
        "--domain",
        "rare",
        "--start",
        "2001-04-09",
        "--end",
        "2001-04-09",
        "--top-k",
        "3",
        "--plan",
    )
    assert "keep" in plan.output, "the date that is published already"


def test_an_import_reports_its_columns_and_may_replace_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "home"))
    head = "customer,item_id,domain_id,event_timestamp,label\n"
    rows = ["1,10,a,2026-01-01,1\n", "2,10,a,2026-01-01,0\n"]
    (tmp_path / "clicks.csv").write_text(head + "".join(rows))
    (tmp_path / "users.csv").write_text('user_id,zip,tags\n1,01234,"x,y"\n2,1234,x\n')
    names = ("--column", "user_id=customer")
    lists = ("--users", tmp_path / "users.csv", "--list", "users.tags=,")
    printed = _run("data", "import", tmp_path / "clicks.csv", *names, *lists).output
    for text in ("users", "list of texts", "leading zeros", "note: users: 2 rows without a date of its own"):
        assert text in printed
    (tmp_path / "clicks.csv").write_text(head + rows[0] * 2)
    report = json.loads(
        _run("data", "import", tmp_path / "clicks.csv", *names, "--replace", "day", "--json").stdout
    )
    assert (report["withdrawn"], report["duplicates"], report["unchanged"]) == (1, 1, 1)
    assert report["columns"][0]["becomes"] == "id (integer)"
    alone = json.loads(_run("data", "import", *lists, "--json").stdout)
    assert (alone["profiles"], alone["first_day"]) == ({"user": 0}, None)


@pytest.mark.slow
def test_one_domains_expert_in_a_session(made_up_workspace: Path) -> None:
    training = ("train", "--as-of", "2001-04-03", "--features", "ids", "--rank", "0.25", "--device", "cpu")
    output = _run(*training, "--gate-per-layer", "--balance", "0.01", "--json").stdout
    first = json.loads(output)["model_version"]
    spec = open_workspace().bundles.load(first).manifest.spec
    assert (spec["rank"], spec["gate_per_layer"], spec["balance"]) == (0.25, True, 0.01)
    experts = ("train", "experts", "--as-of", "2001-04-08", "--domain", "news", "--base", "champion")
    alone = _run(*experts, "--accept-below-baseline").output
    assert "is the challenger" in alone
    assert "before" in alone and "macro_auc" in alone
    assert "parts exchanged: expert:news:0; the other 5 are the same by hash" in alone
    assert "domains that use the experts of news through the gate, with weight: " in alone
    second = json.loads(_run("status", "--json").stdout)["models"][0]["model_version"]
    swapped = _run("swap", "--domain", "news", "--from", second).output
    assert f"is the champion of all domains (was {first})" in swapped


def test_a_model_below_its_baseline_is_printed_with_how_to_promote_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_training(TrainingSummary("r", model_version="20010408-0a"))
    printed = capsys.readouterr().out
    assert "neither champion nor challenger, because it is below its best baseline" in printed
    assert "mmlora promote 20010408-0a --accept-below-baseline" in printed


def test_a_missing_comparison_is_printed_as_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_judgement(nothing_judged("the split leaves no test rows"))
    assert capsys.readouterr().out == "the model was not compared: the split leaves no test rows\n"


def test_domains_without_an_auc_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    pooled = Metrics(100, 20, auc=None, logloss=0.5, ne=0.9, calibration=1.0, ece=0.01)
    metrics = PhaseMetrics(0.8, 0.7, pooled, {}, without_auc=("rare", "7"))
    print_training(TrainingSummary("r", metrics={"gate": metrics}))
    printed = capsys.readouterr().out
    assert "0.7000" in printed and "0.0100" in printed
    assert "auc is undefined for 2 domains whose test rows all have the same label" in printed
    assert "rare, 7" in printed


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_failed_read_keeps_the_existing_file(format: str, tmp_path: Path) -> None:
    schema = pa.schema({"user_id": pa.string()})

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"user_id": ["u01"]}, schema=schema)
        raise ConnectionError("the warehouse went away")

    path = tmp_path / "scores"
    path.write_text("yesterday's")
    with pytest.raises(ConnectionError):
        write_rows(pa.RecordBatchReader.from_batches(schema, batches()), format, path)
    assert path.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [path]
