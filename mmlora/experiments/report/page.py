"""The report's pages: the same parts as Markdown, and as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmlora.experiments.report.plots import Plot
from mmlora.experiments.report.tables import ReportTable
from mmlora.templates import render


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        lines: paragraphs, Markdown.
        lists: then lists, each with its heading ("" for none), Markdown.
        tables: then tables.
        plots: then plots.
    """

    title: str
    lines: Sequence[str] = ()
    lists: Sequence[tuple[str, Sequence[str]]] = ()
    tables: Sequence[ReportTable] = ()
    plots: Sequence[Plot] = ()


@dataclass(frozen=True)
class Page:
    """The whole report.

    Attributes:
        title: its heading.
        description: what the experiment is about, Markdown, paragraphs between empty lines.
        facts: figures at the top: what, and how much.
        sections: its parts.
    """

    title: str
    description: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    def to_markdown(self, pictures: str) -> str:
        """Return the report as Markdown.

        Args:
            pictures: folder of the plots' files, from where the report is.
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
                shown = "\n".join(f"![{plot.title}]({pictures}/{name})" for name in plot.files())
                parts.append(f"### {plot.title}\n\n{shown}\n\n{plot.caption}")
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_html(self) -> str:
        """Return the report as one page: style and pictures inside, nothing fetched, no script."""
        return render("mmlora.experiments.report", "report.html", page=self)
