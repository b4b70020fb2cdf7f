from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmlora.experiments.cell import Cell
from mmlora.experiments.report.reading import read_results
from mmlora.experiments.report.statistics import Evidence
from mmlora.experiments.report.studies import Study, studies
from mmlora.experiments.report.write import write_report
from mmlora.pages.style import COLOURS
from tests.experiments.report.made_cells import NOISE, MadeCells

SVG = "{http://www.w3.org/2000/svg}"
DESCRIPTION = "Whether `moe_mlora` helps <here> & now."


def study_of(folder: Path) -> Study:
    experiment = read_results(folder)
    (study,) = studies(experiment, Evidence(experiment))
    return study


def result(folder: Path, key: str) -> dict[str, object]:
    return json.loads((folder / "cells" / key / "result.json").read_text())  # type: ignore[no-any-return]


def row_of(markdown: str, table: str, name: str) -> list[str]:
    """The fields of a table's row."""
    after = markdown.split(f"### {table}\n", 1)[1]
    (line,) = re.findall(rf"^\| {re.escape(name)} \|.*$", after.split("###", 1)[0], re.MULTILINE)
    return [field.strip() for field in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def gender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gender")
    made = MadeCells(folder)
    for seed in range(3):
        for arm in NOISE:
            made.add(arm, seed=seed)
            if arm in ("pooled_domain", "mlora", "moe_mlora"):
                made.add(arm, seed=seed, backbone="dcn")
        for experts in (1, 3):
            made.add("moe_mlora", seed=seed, experts=experts)
    return folder


@pytest.fixture(scope="module")
def report(gender: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_report(gender, "Gender & arms", DESCRIPTION, tmp_path_factory.mktemp("out"))


def test_means_equal_those_of_the_cells(gender: Path, report: list[Path]) -> None:
    results = [json.loads(path.read_text()) for path in sorted(gender.glob("cells/*/result.json"))]
    waucs = [
        r["test"]["wauc"] for r in results if (r["cell"]["arm"], r["cell"]["backbone"]) == ("mlora", "wdl")
    ]
    fields = row_of(report[0].read_text(), "Test wauc", "mlora")
    assert fields[2].split()[0].strip("*") == f"{np.mean(waucs):.4f}"
    assert len(waucs) == 3


def test_paired_differences_use_the_same_seeds(gender: Path, report: list[Path]) -> None:
    by_arm: dict[str, dict[int, float]] = {"mlora": {}, "pooled_domain": {}}
    for path in gender.glob("cells/*/result.json"):
        r = json.loads(path.read_text())
        if r["cell"]["backbone"] == "wdl" and r["cell"]["arm"] in by_arm:
            by_arm[r["cell"]["arm"]][r["cell"]["seed"]] = r["test"]["wauc"]
    expected = np.mean([by_arm["mlora"][s] - by_arm["pooled_domain"][s] for s in range(3)])
    fields = row_of(report[0].read_text(), "Difference to pooled_domain", "mlora")
    assert f"▲ {expected:+.4f} [" in fields[2]


def test_findings_agree_with_the_figures(report: list[Path]) -> None:
    text = report[0].read_text()
    assert re.search(
        r"Does one adapter per domain help\? `mlora` is above `pooled_domain`: \+0\.\d{4} wauc \[\+", text
    )
    assert re.search(
        r"one model per domain do better\? `separate` is below `pooled_domain`: -0\.\d{4} wauc \[-", text
    )
    assert "mean of 2 backbones, gender, 3 seeds" in text


def test_equal_arms_are_within_noise_and_none_is_marked_best(tmp_path: Path) -> None:
    made = MadeCells(tmp_path / "cells-here")
    for seed in range(3):
        for arm in ("pooled_domain", "mlora"):
            made.add(arm, seed=seed, noise=0.9)
    text = write_report(tmp_path / "cells-here", "t", "d", tmp_path)[0].read_text()
    assert "No difference beyond noise between `mlora` and `pooled_domain`: " in text
    assert "**" not in text.split("### Difference", 1)[0].split("### Test wauc", 1)[1]


def test_a_single_arm_has_no_findings(tmp_path: Path) -> None:
    MadeCells(tmp_path / "cells-here").add("moe_mlora", seed=0)
    text = write_report(tmp_path / "cells-here", "t", "d", tmp_path)[0].read_text()
    findings = text.split("## Findings\n", 1)[1].split("\n## ", 1)[0].strip()
    assert findings.startswith("Nothing is compared")
    assert "there is only `moe_mlora`. Add arms to the grid, such as `pooled_domain`" in findings


def test_an_arm_above_every_other_is_marked_best(report: list[Path]) -> None:
    fields = row_of(report[0].read_text(), "Test wauc", "moe_mlora, 3 experts")
    assert fields[2].startswith("**")


def test_the_page_is_self_contained_and_well_formed(report: list[Path]) -> None:
    page = report[1].read_text()
    tree = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert not re.search(r"https?:|<script|<img|<link|@import|url\((?!#)", page)
    tags = {element.tag for element in tree.iter()}
    assert {"svg", "table", "figure", "figcaption"} <= tags
    assert "Whether <code>moe_mlora</code> helps &lt;here&gt; &amp; now." in page
    assert "prefers-color-scheme: dark" in page
    ids = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids)), "plots share ids"
    assert {link.lstrip("#") for link in re.findall(r'href="([^"]+)"|url\(#', page) if link} <= set(ids)


def test_plots_in_the_page_follow_its_light_or_dark_colours(report: list[Path]) -> None:
    page = report[1].read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert drawings and not re.search("#[0-9a-f]{6};", "".join(drawings)), "a colour is the same on any paper"
    names = set(re.findall(r"var\(--(\w+)\)", "".join(drawings)))
    light, dark = page.split("prefers-color-scheme: dark", 1)
    assert {"ink", "paper", "blue", "red"} <= names
    for name in names:
        assert f"--{name}:" in light and f"--{name}:" in dark
    assert COLOURS["paper"] in report[2].read_text(), "a file of its own is on white paper"


def test_points_have_tooltips(report: list[Path]) -> None:
    lift, cost = (
        ElementTree.parse(next(path for path in report if path.stem.startswith(name))).iter(f"{SVG}title")
        for name in ("lift", "cost")
    )
    domains = [title.text or "" for title in lift]
    assert sum(text.startswith("M, mlora: +0.0") for text in domains) == 1
    assert sum(text.startswith("F, ") for text in domains) == 6
    assert any(re.match(r"joint on wdl: wauc 0\.\d{4}, 120 s", title.text or "") for title in cost)


def test_every_plot_with_figures_is_drawn_with_its_labels(report: list[Path]) -> None:
    names = {path.stem.split("-gender-ids-random")[0] for path in report[2:]}
    assert names == {"lift-by-domain", "experts", "gate", "cost"}  # 2 domains are too few for the scatter
    markdown = report[0].read_text()
    for path in report[2:]:
        ElementTree.fromstring(path.read_text())
        assert f"](plots/{path.name})" in markdown
    experts = "".join(path.read_text() for path in report if path.stem.startswith("experts"))
    for words in ("experts per domain (count)", "test wauc minus that of mlora", "dcn", "wdl"):
        assert (words in experts) == (words != "dcn")  # dcn has one number of experts: no line


def test_the_same_cells_give_the_same_bytes(gender: Path, report: list[Path], tmp_path: Path) -> None:
    again = write_report(gender, "Gender & arms", DESCRIPTION, tmp_path)
    assert [path.name for path in again] == [path.name for path in report]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(again, report, strict=True))


def test_missing_failed_and_broken_cells_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = MadeCells(folder)
    keys = [made.add(arm) for arm in ("pooled_domain", "mlora", "separate")]
    stranger = made.add("joint")
    planned = {key: Cell.from_json(result(folder, key)["cell"]) for key in keys}  # type: ignore[arg-type]
    np.save(folder / "cells" / keys[2] / "scores.npy", np.zeros(3, np.float32))
    (folder / "cells" / "stopped").mkdir()
    planned["stopped"] = replace(planned[keys[0]], seed=7)
    planned["absent"] = replace(planned[keys[0]], seed=8)
    text = write_report(folder, "t", "d", tmp_path, planned)[0].read_text()
    missing = text.split("## Missing cells", 1)[1]
    assert "gender, ids, wdl, pooled_domain, split random, seed 7: no result yet" in missing
    assert "gender, ids, wdl, pooled_domain, split random, seed 8: not yet run" in missing
    assert "separate, split random, seed 0: can't be read: (3,) scores for (4000,) test rows" in missing
    assert "joint" not in text, f"{stranger} is of no cell of the grid"
    assert "cells missing: 3" in text


def test_a_result_that_contradicts_its_scores_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    key = MadeCells(folder).add("mlora")
    raw = result(folder, key)
    raw["test"]["wauc"] = 0.99  # type: ignore[index]
    (folder / "cells" / key / "result.json").write_text(json.dumps(raw))
    text = write_report(folder, "t", "d", tmp_path)[0].read_text()
    assert "its result has wauc 0.99" in text


def test_domains_with_one_label_are_listed_as_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = MadeCells(folder, {"big": 0.9, "small": 0.1})
    key = made.add("mlora")
    rows = folder / "data" / "gender-ids-0"
    label, domain = np.load(rows / "label.npy"), np.load(rows / "domain.npy")
    np.save(rows / "label.npy", np.where(domain == 1, 0, label))
    raw = result(folder, key)
    raw["test"]["without_auc"] = ["small"]  # type: ignore[index]
    (folder / "cells" / key / "result.json").write_text(json.dumps(raw))
    text = write_report(folder, "t", "d", tmp_path)[0].read_text()
    assert "Left out of means because all of their test rows have the same label: small." in text


def test_a_report_of_one_seed_has_a_caution(tmp_path: Path) -> None:
    made = MadeCells(tmp_path / "made")
    for arm in ("pooled_domain", "mlora"):
        made.add(arm)
    text = write_report(tmp_path / "made", "t", "d", tmp_path)[0].read_text()
    assert "1 seed (so intervals cover the variation of test users only)" in text
    assert "they are too narrow" in text


def test_dials_are_rows_and_other_settings_are_columns(tmp_path: Path) -> None:
    made = MadeCells(tmp_path, {f"d{i}": i + 1 for i in range(5)})
    for diversity in (0.0, 1.0):
        for arm in ("pooled_domain", "mlora"):
            for rank in (4, 8) if arm == "mlora" else (None,):
                settings = {"diversity": diversity, **({"rank": rank} if rank else {})}
                made.add(arm, settings=settings, data="made", noise=0.9 - 0.2 * diversity * (arm == "mlora"))
    study = study_of(tmp_path)
    assert study.dials == ("diversity",)
    assert [row.dials for row in study.rows] == [(("diversity", 0.0),), (("diversity", 1.0),)]
    assert [study.label(v) for v in study.variants] == ["pooled_domain", "mlora, rank 4", "mlora, rank 8"]
    files = write_report(tmp_path, "t", "d", tmp_path / "out")
    dials = next(path for path in files if path.stem.startswith("dials")).read_text()
    assert "best reachable" in dials
    best = study.all_cells()[0].best_reachable
    [row] = [
        line
        for line in (tmp_path / "out" / "report.md").read_text().splitlines()
        if "| made," in line and "diversity 0.0 |" in line
    ]
    assert f"| {best:.4f} |" in row
    assert any(path.stem.startswith("size") for path in files)


def test_means_over_backbones_use_common_seeds(tmp_path: Path) -> None:
    made = MadeCells(tmp_path)
    for backbone, seeds in (("wdl", (0, 1, 2)), ("dcn", (0, 1))):
        for seed in seeds:
            for arm in ("pooled_domain", "mlora"):
                made.add(arm, seed=seed, backbone=backbone)
    study = study_of(tmp_path)
    mlora = next(v for v in study.variants if v.arm == "mlora")
    whole = study.difference(study.rows, mlora, "pooled_domain")
    each = [study.difference([row], mlora, "pooled_domain") for row in study.rows]
    assert whole is not None
    assert whole.seeds == 2
    dcn, wdl = (difference.by_seed[:2] for difference in each if difference is not None)
    assert whole.by_seed == pytest.approx([(a + b) / 2 for a, b in zip(dcn, wdl, strict=True)])


def test_the_most_similar_baseline_is_used(tmp_path: Path) -> None:
    made = MadeCells(tmp_path)
    for experts in (1, 2, 3):
        made.add("moe_mlora", experts=experts)
        made.add("mlora_matched", experts=experts)
    study = study_of(tmp_path)
    (row,) = study.rows
    for variant in (v for v in study.variants if v.arm == "moe_mlora"):
        matched = study.baseline(row, variant, "mlora_matched")
        assert matched is not None and matched.experts == variant.experts
