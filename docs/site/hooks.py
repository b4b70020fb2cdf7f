"""What mkdocs does beside rendering docs/*.md: generated parts, the pages of the repository's root, links.

The pages stay readable where they are. A comment such as ``<!-- generated: settings training -->`` is
replaced by what :mod:`reference` makes from the code; README.md and its neighbours become pages of the site;
a link to a file that isn't a page keeps its text only.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "RELEASING.md": "releasing.md",
    "feature_repo/README.md": "feature_views.md",
}
"""Pages outside docs/, and where they are on the site."""

_GENERATED = re.compile(r"<!-- generated: (\w+) ?([\w./]*) -->")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are outside of docs/."""
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated parts, and let links point at pages of the site."""
    path = page.file.src_uri
    markdown = _GENERATED.sub(lambda found: reference.generate(found[1], found[2]), markdown)
    kept = _FENCED.findall(markdown)
    prose = [_LINK.sub(lambda found: _link(found, path), part) for part in _FENCED.split(markdown)]
    return "".join(part for pair in zip(prose, [*kept, ""], strict=True) for part in pair)


def _link(found: re.Match[str], page: str) -> str:
    """Return a link of the repository as one of the site, or its text if the site has no such page."""
    image, text, address = found.groups()
    target, _, anchor = address.partition("#")
    if not target or ":" in target:
        return found[0]
    source = next((source for source, name in ROOT_PAGES.items() if name == page), f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    on_site = ROOT_PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else "")
    if not on_site and (ROOT / target).exists():
        return text
    address = posixpath.relpath(on_site or target, posixpath.dirname(page) or ".")
    return f"{image}[{text}]({address}{'#' if anchor else ''}{anchor})"
