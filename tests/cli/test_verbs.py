"""The verbs in a terminal session: import, build, train, score, read; tables, CSV, Parquet and JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.csv as csv
import pyarrow.parquet as pq
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app


def _run(*arguments: Any) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_session(made_up_workspace: Path, tmp_path: Path) -> None:
    assert "user_activity" in _run("features", "build", "--through", "2001-04-08").output
    assert "rich" in _run("validate", "--as-of", "2001-04-08").output
    trained = _run("train", "--as-of", "2001-04-08", "--features", "ids", "--backbone", "deepfm")
    assert "is the champion" in trained.output
    scored = json.loads(_run("score", "--date", "2001-04-09", "--top-k", "3", "--json").stdout)
    assert [load["state"] for load in scored["loads"]] == ["published"] * 3
    assert "2001-04-09" in _run("status").output

    one_user = _run("read", "--domain", "news", "--user", "u01", "--format", "csv").stdout
    assert csv.read_csv(io.BytesIO(one_user.encode())).column("position").to_pylist() == [1, 2, 3]
    path = tmp_path / "scores.parquet"
    _run("read", "--domain", "news", "--format", "parquet", "--output", path)
    news = next(load for load in scored["loads"] if load["domain_id"] == "news")
    assert pq.read_metadata(path).num_rows == news["rows"]

    plan = _run("backfill", "--domain", "rare", "--start", "2001-04-07", "--end", "2001-04-09", "--plan")
    assert "keep" in plan.output, "the date that is published already"
