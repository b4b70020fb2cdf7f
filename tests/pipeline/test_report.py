"""One page about a night, with everything that is known of it."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmlora.errors import UsageError
from mmlora.pipeline.evaluate import evaluate
from mmlora.pipeline.report import report
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.validate import validate
from mmlora_cli.main import app
from tests.conftest import use_workspace

NIGHT = date(2001, 4, 9)


@pytest.fixture(scope="module")
def night(night_of_experts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of two domains by a model with a gate, measured by its labels."""
    home = tmp_path_factory.mktemp("reported") / "var"
    shutil.copytree(night_of_experts, home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        validate(NIGHT)
        score_and_publish(NIGHT, domain="sport", top_k=15)
        evaluate()
    return home


@pytest.fixture(autouse=True)
def workspace(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_workspace(monkeypatch, night)


def test_a_night_has_verdicts_loads_lift_gate_reliability_and_quality(night: Path) -> None:
    written = report(NIGHT)
    figures = written.report
    assert written.path == str(night / "reports" / "2001-04-09.html")
    assert {each.domain: each.verdict for each in figures.domains} == {
        **dict.fromkeys(("news", "sport"), "rich"),
        "rare": "thin",
    }
    assert [(load.domain, load.state) for load in figures.loads] == [
        ("news", "published"),
        ("sport", "published"),
    ]
    assert all(load.rows and load.pairs_per_second and load.checks for load in figures.loads)
    assert {lift.domain for lift in figures.lifts} == {"news", "sport"}
    (gate,) = figures.gates
    assert len(gate.experts) == 2
    sums = {domain: sum(weights) for domain, weights in gate.weights.items()}
    assert sums == pytest.approx({"news": 1, "rare": 0, "sport": 1}), "rare has the backbone alone"
    every, *domains = figures.reliability
    assert (every.domain, every.rows) == (None, sum(curve.rows for curve in domains))
    assert every.rows == sum(part.rows for part in every.bins) == sum(q.scored for q in figures.quality)
    assert figures.notes == ()


def test_the_page_is_self_contained_and_has_every_section(night: Path) -> None:
    page = Path(report(NIGHT).path).read_text()
    tree = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert not re.search(r"https?:|<script|<img|<link|@import|url\((?!#)", page)
    assert "width=device-width" in page and "prefers-color-scheme: dark" in page
    titles = ["".join(heading.itertext()) for heading in tree.iter("h2")]
    assert titles == [
        "Domains",
        "Loads",
        "Drift",
        "Lift over the best baseline",
        "Calibration",
        "Published nights",
        "Gate",
    ]
    assert "Drift by domain" in page and "feature_shift" in page
    ids = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids)), "plots share ids"
    drawn = [figure.attrib["id"] for figure in tree.iter("figure")]
    assert drawn == ["lift", "reliability", "quality", "gate-0"]
    tiles = [
        "".join(tile.itertext()) for tile in tree.iter("li") if tile.attrib.get("class") in ("rich", "thin")
    ]
    assert tiles == ["newsrichpublished", "rarethinnot scored", "sportrichpublished"]


def test_the_command_prints_the_figures(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    shown = (
        CliRunner().invoke(app, ["report", "--date", str(NIGHT), "--output", str(output), "--json"]).stdout
    )
    raw = json.loads(shown)
    assert raw["path"] == str(output) and output.exists()
    assert raw["score_date"] == "2001-04-09" and raw["quality"] and raw["lifts"]


def test_an_unknown_night_has_no_report() -> None:
    with pytest.raises(UsageError, match="neither a verdict nor a load of 2001-05-01"):
        report(date(2001, 5, 1))
