"""What a person finds in the Data Docs, and that loading Great Expectations stays quiet."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from tests.checks.conftest import AS_OF, Store, Validate, days_ago, healthy, row


def _links(page: Path) -> list[Path]:
    return [(page.parent / link).resolve() for link in re.findall(r'href="([^"#:]+)"', page.read_text())]


def _marks(text: str) -> list[str]:
    return re.findall(r'class="(rich|passed|thin|warning|absent|broken|failed)"', text)


def test_the_index_links_to_the_results(store: Store, validate: Validate) -> None:
    store.write([*healthy("sports"), row("<b>news", days_ago(2), label=7)])
    report = validate(store, "arts")
    assert report.data_docs_index.name == "index.html"
    (page,) = _links(report.data_docs_index)
    text = page.read_text()
    for name in (
        "sports",
        "arts",
        "&lt;b&gt;news: 1 rows with a label other than 0 and 1",
        "broken",
        "Every label is 0 or 1.",
        "trains no expert of its own",
        "arts: no rows in the last",
    ):
        assert name in text
    assert "<b>news" not in text
    interactions, sparsity = re.findall(r'<a href="#(\w+)">', text)
    assert (interactions, sparsity) == ("interactions", "domain_sparsity")
    assert all(f'<h2 id="{suite}">' in text for suite in (interactions, sparsity))


def test_thin_is_a_warning_and_only_broken_is_red(store: Store, validate: Validate) -> None:
    store.write([*healthy("a"), row("b", days_ago(2))])
    index = validate(store, "c").data_docs_index
    (page,) = _links(index)
    for text in (index.read_text(), page.read_text()):
        assert "warning" in _marks(text)
        assert {"failed", "broken"}.isdisjoint(_marks(text))


def test_pages_load_nothing_from_the_web(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    index = validate(store).data_docs_index
    pages = list(index.parent.rglob("*.html"))
    assert len(pages) == 2
    assert [page for page in pages if re.search(r"https?:|//|src=|@import|url\(", page.read_text())] == []


def test_every_date_keeps_its_page(store: Store, validate: Validate) -> None:
    store.write(healthy("a"))
    dates = [AS_OF, AS_OF - timedelta(days=2), AS_OF - timedelta(days=1)]
    for as_of in dates:
        index = validate(store, as_of=as_of).data_docs_index
    assert [page.stem for page in _links(index)] == [str(day) for day in sorted(dates, reverse=True)]
    assert all(linked.is_file() for page in _links(index) for linked in _links(page))


def test_great_expectations_is_imported_lazily_and_quietly(store: Store, tmp_path: Path) -> None:
    """No warning, progress bar or line reaches the user, and the room's door loads nothing heavy."""
    store.write(healthy("a"))
    script = f"""
import sys, datetime, pathlib
from mmlora.checks.validation import Thresholds, run_validation
heavy = {{"great_expectations", "pandas", "torch"}} & set(sys.modules)
assert not heavy, heavy
run_validation(pathlib.Path({str(store.root)!r}), as_of=datetime.date(2024, 3, 1), thresholds=Thresholds(),
    expected_domains=["b"], data_docs=pathlib.Path({str(tmp_path / "docs")!r}))
import os
assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
