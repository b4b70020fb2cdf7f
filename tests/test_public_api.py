"""The public API: what README and docs import, imported lazily."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import mmlora

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _python(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _used(code: str) -> set[str]:
    """Return the names of mmlora that code imports or reads; a submodule's are given in full."""
    used: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mmlora":
            used |= {f"{node.module}.{alias.name}".removeprefix("mmlora.") for alias in node.names}
        elif isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names if alias.name.startswith("mmlora.")}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "mmlora":
            used.add(node.attr)
    return used


def test_readme_and_docs_import_public_names_only() -> None:
    used = {name for page in PAGES for code in _python(page) for name in _used(code)}
    assert "read_scores" in used
    assert used - set(mmlora.__all__) == set()


@pytest.mark.parametrize("name", mmlora.__all__)
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(mmlora, name) is not None
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert getattr(mmlora, name).__doc__
    assert f"`{name}`" in page or name.endswith("Error"), "the table of errors is generated"


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        mmlora.no_such_name  # noqa: B018
    assert set(mmlora.__all__) <= set(dir(mmlora))


def test_importing_public_errors_loads_no_library() -> None:
    code = (
        "import sys, mmlora; assert not {'torch', 'feast', 'pandas', 'sqlalchemy'} & set(sys.modules)\n"
        "from mmlora import MmloraError, UsageError\n"
        "print({'torch', 'feast', 'pandas', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_type_checkers_see_the_arguments(tmp_path: Path) -> None:
    assert (ROOT / "mmlora" / "py.typed").exists()
    (tmp_path / "use.py").write_text(
        "from datetime import date\n"
        "import mmlora\n"
        "load: str = mmlora.score(date(2026, 3, 2), 'nl', top_k=100)\n"
        "mmlora.score('2026-03-02', 'nl')\n"
        "mmlora.no_such_name\n"
    )
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-mmlora.*]\nfollow_imports = silent\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    faults = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert faults == ["4", "5"], done.stdout


def test_scores_are_published_and_read_by_the_public_api(made_up_workspace: Path) -> None:
    mmlora.train(date(2001, 4, 8), features="ids", adaptation="none")
    load_id = mmlora.score(date(2001, 4, 9), "news", top_k=3)
    with pytest.raises(mmlora.UsageError, match="nothing is published"), mmlora.read_scores("news"):
        pass
    assert mmlora.publish(load_id) == load_id
    with mmlora.read_scores("news", on=date(2001, 4, 9), home=made_up_workspace) as reader:
        assert set(reader.read_all()["position"].to_pylist()) == {1, 2, 3}
    plan = mmlora.backfill("news", date(2001, 4, 9), date(2001, 4, 9), top_k=3, plan_only=True)
    assert [row.action for row in plan.plan] == ["keep"]
