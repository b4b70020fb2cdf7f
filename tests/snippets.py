"""The code blocks of README and docs, and what is said of those that tests don't run.

``<!-- not run: needs a cluster -->`` before a block, or ``<!-- not run on this page: ... -->`` anywhere on
its page, says why no test runs it. Such a block is parsed all the same. ``<!-- exits with 1: ... -->`` says
that a block's last command does, and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "RELEASING.md", "feature_repo/README.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]

_SAID = r"^<!-- (?:not run: (?P<why>.+?)|exits with (?P<exits>\d+): .+?) -->\n\n?"
_BLOCK = re.compile(
    rf"(?:{_SAID})?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code on a page; ``not_run`` says why no test runs it, and is empty if one does."""

    page: str
    line: int
    language: str
    text: str
    not_run: str
    exits: int = 0

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[str]:
        """Yield the lines of a shell block, those that end with a backslash joined."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line


def blocks(page: str) -> list[Block]:
    """Return a page's blocks of code, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    whole = re.search(r"^<!-- not run on this page: (.+?) -->$", text, re.MULTILINE)
    return [
        Block(
            page,
            text[: found.start("language")].count("\n") + 1,
            found["language"],
            found["text"],
            found["why"] or (whole[1] if whole else ""),
            int(found["exits"] or 0),
        )
        for found in _BLOCK.finditer(text)
    ]


def spans(page: str) -> list[str]:
    """Return the commands in a page's prose: code spans that begin with mmlora or make."""
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return [" ".join(span.split()) for span in re.findall(r"`((?:mmlora|make) [^`]+)`", text)]
