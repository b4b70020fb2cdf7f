"""The documented ways to read scores, run as they are written but for the names of domain, user and dates."""

from __future__ import annotations

import re
import sqlite3
from datetime import date
from pathlib import Path

import pytest

from mmlora.check_rules import RULES
from mmlora.pipeline.score import score_and_publish

ROOT = Path(__file__).parents[1]


def _block(language: str, page: str = "README.md") -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block).replace("farmer", "news")


@pytest.fixture
def scored(trained_workspace: Path) -> Path:
    score_and_publish(date(2001, 4, 9), domain="news")
    return trained_workspace


def test_the_docs_example_of_a_ranking_job_runs(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(scored / "warehouse.db")
    rows = connection.execute(_block("sql").replace("2504", "'u01'")).fetchall()
    connection.close()
    assert len(rows) == 5
    assert [score for _, score in rows] == sorted((score for _, score in rows), reverse=True)
    exec(compile(_block("python").replace("2504", "u01"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(str(item) in printed for item, _ in rows)


def test_the_docs_examples_for_ranking_teams_run(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = _block("sql", "docs/reading.md").replace("2504", "'u01'")
    assert " AND NOT is_stale" in query
    connection = sqlite3.connect(scored / "warehouse.db")
    assert connection.execute(query).fetchall() == [], "scores of 2001 are stale"
    assert len(connection.execute(query.replace(" AND NOT is_stale", "")).fetchall()) == 5
    connection.close()
    (scored.parent / "users.csv").write_text("user_id\nu01\nu02\n")
    code = (
        _block("python", "docs/reading.md")
        .replace("2026, 3, 1", "2001, 4, 1")
        .replace("2026, 3, 7", "2001, 4, 9")
    )
    exec(compile(code, "docs/reading.md", "exec"), {})
    assert sum(map(int, capsys.readouterr().out.split())) == 10


PAGES = [
    "README.md",
    "CHANGELOG.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_in_the_docs_work(page: str) -> None:
    text, folder = (ROOT / page).read_text(encoding="utf-8"), (ROOT / page).parent
    targets = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in targets if not (folder / link).exists()] == []
    linked = re.findall(r"\]\(([^)#:]*)#([\w-]+)\)", text)
    assert [f"{link}#{part}" for link, part in linked if part not in _anchors(folder / link, text)] == []


def _anchors(page: Path, own: str) -> set[str]:
    """Return the parts of a page that can be linked to; of the page itself for a link without a file."""
    text = own if page.is_dir() else page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_docs_have_the_threshold_and_severity_of_each_check() -> None:
    text = (ROOT / "docs/quality.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:5] for line in text.splitlines() if line.startswith("| `")]
    told = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    rules = [rule for rule in RULES if not rule.name.startswith("null_")]
    limits = {rule.name: f"`{rule.setting}`" if rule.setting else f"{rule.threshold:g}" for rule in rules}
    assert [name for name, limit in limits.items() if limit not in told[name][2]] == []
    assert [rule.name for rule in rules if not told[rule.name][3].strip().startswith(rule.severity)] == []


def test_tests_that_hold_promises_exist() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    code = {path: (ROOT / path).read_text(encoding="utf-8") for path, _ in named if (ROOT / path).exists()}
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in code.get(path, "")] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"])
def test_links_in_the_top_level_pages_work(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in targets if "://" not in link and not (ROOT / link).exists()] == []


def test_files_named_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:mmlora|cli|tests|sql|dags|docker|feature_repo)/[^`]*)`", text))
    assert len(names) > 20
    assert [name for name in sorted(names) if "NAME" not in name and not (ROOT / name).exists()] == []


def test_names_in_contributing_are_in_the_code() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mmlora").rglob("*.py"))
    defined = set(re.findall(r"\b(?:class|def) (\w+)|^(\w+)(?::.*)? = ", code, re.MULTILINE))
    known = {name for pair in defined for name in pair if name}
    said = set(re.findall(r"`([A-Z][a-zA-Z]+|BACKBONES|BACKEND|_split|_MODULES|add_check)`", text))
    assert said - known == set()
