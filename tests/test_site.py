"""The site builds without a warning, and its reference has everything that the code has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import typer

import mmlora
from mmlora.check_rules import RULES
from mmlora.hyperparameters import SETTINGS
from mmlora.schema import IdTypes
from mmlora.settings import Settings
from mmlora.warehouse.tables import tables, views
from mmlora_cli.main import app

ROOT = Path(__file__).parents[1]
TABLES = tables(IdTypes("int64", "int64", "int64")).metadata.tables


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def _text(page: Path) -> str:
    """Return a page's text, with a line per table row."""
    html = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", "", html.replace("</td>", " | ")))


def _rows(page: Path) -> list[list[str]]:
    """Return the cells of the rows of a page's tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.read_text(encoding="utf-8"), re.DOTALL)
    cells = (re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rows)
    return [[unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells if row]


def test_every_page_is_in_the_navigation_and_every_link_and_anchor_works(site: Path) -> None:
    assert (site / "index.html").exists()
    assert not list(site.rglob("*.py"))
    pages = list(site.rglob("index.html"))
    assert len(pages) > 30
    assert [page for page in pages if "generated: " in page.read_text(encoding="utf-8")] == []


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = _text(site / "commands/index.html")
    assert "Example: " not in text
    for name, command in typer.main.get_command(app).commands.items():
        for child in getattr(command, "commands", {"": command}).items():
            assert f"mmlora {name} {child[0]}".strip() in text
            for option in child[1].params:
                assert max(option.opts, key=len) in text
                assert (option.help or "").replace("`", "") in " ".join(text.split())


@pytest.mark.parametrize("section", [None, *Settings.model_fields])
def test_every_setting_has_default_and_meaning(site: Path, section: str | None) -> None:
    fields = Settings.model_fields
    if section is not None:
        fields = getattr(fields[section].annotation, "model_fields", {section: fields[section]})
    shown = {row[0]: row[1:] for row in _rows(site / "settings/index.html") if len(row) == 4}
    for name, field in fields.items():
        if hasattr(field.annotation, "model_fields"):
            continue
        default, valid, meaning = shown[name]
        assert default and valid and meaning, name


def test_a_training_setting_shows_its_declaration(site: Path) -> None:
    rows = _rows(site / "settings/index.html")
    shown = {row[-1] for row in rows}
    helps = [one.setting.help.replace("`", "") for one in SETTINGS.values()]
    assert [text for text in helps if text not in shown] == []
    assert ["rank", "8", "a whole number from 1, or a share of a layer's width in (0, 1)"] in [
        row[:3] for row in rows
    ]


def test_every_check_and_error_is_in_the_reference(site: Path) -> None:
    checks = {row[0]: row for row in _rows(site / "settings/index.html") if len(row) == 6}
    assert [rule.name for rule in RULES if checks[rule.name][4] != rule.severity] == []
    errors = {row[0]: row for row in _rows(site / "api/index.html") if len(row) == 4}
    classes = {name for name in mmlora.__all__ if name.endswith("Error")}
    assert classes <= set(errors)
    for name in classes:
        _, status, when, remedy = errors[name]
        assert status == str(getattr(mmlora, name).exit_code)
        assert when and remedy


def test_every_public_function_is_described(site: Path) -> None:
    html = (site / "api/index.html").read_text(encoding="utf-8")
    for name, module in mmlora._MODULES.items():
        assert f'id="{module}.{name}"' in html
    assert "known_as_of" in html, "arguments are shown"


@pytest.mark.parametrize("name", [*TABLES, *views()])
def test_every_table_and_view_is_in_the_reference(site: Path, name: str) -> None:
    html = (site / "tables/index.html").read_text(encoding="utf-8")
    assert f'<h3 id="{name}">' in html
    for column in TABLES[name].columns if name in TABLES else ():
        assert f"<code>{column.name}</code>" in html.partition(f'<h3 id="{name}">')[2].partition("<h3")[0]
