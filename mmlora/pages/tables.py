"""Tables of a report, as texts with marks that are written as Markdown or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Mark = Literal["", "best", "up", "down", "soft"]
_ARROWS = {"up": "▲ ", "down": "▼ "}


@dataclass(frozen=True)
class Entry:
    """A field of a table.

    Attributes:
        main: the text.
        sub: a second, smaller text.
        mark: how it is highlighted.
    """

    main: str
    sub: str = ""
    mark: Mark = ""

    @property
    def arrow(self) -> str:
        """An arrow for the sign of a difference, for readers who cannot tell the colours."""
        return _ARROWS.get(self.mark, "")


@dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
        title: the title above it.
        note: how to read it.
        head: names of the columns; the first names the rows.
        rows: rows of as many fields as ``head``.
        folded: whether a page shows it only on request.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[Entry, ...]]
    folded: bool = field(default=False)

    def to_markdown(self) -> str:
        """Return the table with its title and note."""
        lines = [f"### {self.title}", "", self.note, "", _line(self.head)]
        lines.append(_line(["---", *("---:" for _ in self.head[1:])]))
        lines += [_line([_markdown(entry) for entry in row]) for row in self.rows]
        return "\n".join(lines) + "\n"


def _markdown(entry: Entry) -> str:
    body = f"**{entry.main}**" if entry.mark == "best" else f"{entry.arrow}{entry.main}"
    return f"{body} {entry.sub}".strip()


def _line(fields: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', '/') for text in fields)} |"
