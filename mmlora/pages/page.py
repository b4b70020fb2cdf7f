"""The report as Markdown, and with the same content as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmlora.pages.drawing import Plot
from mmlora.pages.tables import ReportTable
from mmlora.templates import render


@dataclass(frozen=True)
class Tile:
    """A tile of a map.

    Attributes:
        title: what it stands for.
        text: a second line.
        mark: a word that is shown and chooses the colour: rich, thin, absent, broken or another.
    """

    title: str
    text: str
    mark: str


@dataclass(frozen=True)
class Section:
    """A section of the report, in the order of its attributes.

    Attributes:
        title: the heading.
        lines: paragraphs; Markdown.
        lists: lists, each with a heading ("" for none); Markdown.
        tables: tables.
        plots: plots.
        tiles: a map, shown first; left out of Markdown.
    """

    title: str
    lines: Sequence[str] = ()
    lists: Sequence[tuple[str, Sequence[str]]] = ()
    tables: Sequence[ReportTable] = ()
    plots: Sequence[Plot] = ()
    tiles: Sequence[Tile] = ()


@dataclass(frozen=True)
class Page:
    """The whole report.

    Attributes:
        title: the heading.
        description: description of the experiment: paragraphs separated by empty lines, code in backquotes.
        facts: names and values of the figures at the top.
        sections: the sections.
    """

    title: str
    description: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    def to_markdown(self, pictures: str) -> str:
        """Return the report as Markdown.

        Args:
            pictures: path of the folder of plots, relative to the report.
        """
        facts = " · ".join(f"{name}: {value}" for name, value in self.facts)
        parts = [f"# {self.title}", self.description.strip(), facts]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += section.lines
            for heading, bullets in section.lists:
                parts += [f"### {heading}"] if heading else []
                parts.append("\n".join(f"- {bullet}" for bullet in bullets))
            parts += [table.to_markdown().rstrip() for table in section.tables]
            for plot in section.plots:
                images = "\n".join(f"![{plot.title}]({pictures}/{name})" for name in plot.files())
                parts.append(f"### {plot.title}\n\n{images}\n\n{plot.caption}")
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_html(self) -> str:
        """Return the report as one page with embedded style and plots, without scripts or external files."""
        return render("mmlora.pages", "report.html", page=self)
