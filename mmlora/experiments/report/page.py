"""The report's pages: the same parts as Markdown, and as one HTML page that needs nothing but itself."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from mmlora.experiments.report import svg
from mmlora.experiments.report.plots import Plot
from mmlora.experiments.report.tables import ReportTable, inline

_STYLE = """
:root { color-scheme: light dark; --ink:#1d2129; --soft:#5b6472; --line:#d9dde3; --paper:#fff; --tint:#f4f6f8;
  --up:#00694d; --down:#b03a00; --link:#0064a0 }
@media (prefers-color-scheme: dark) {
:root { --ink:#e8eaee; --soft:#a4adba; --line:#3a4049; --paper:#16191e; --tint:#1f242b;
  --up:#35c79b; --down:#ff8a55; --link:#6cb8f0 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1100px; padding: 2.2rem 1.4rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem }
h2 { font-size: 1.35rem; margin: 2.8rem 0 .4rem; padding-top: .9rem; border-top: 1px solid var(--line) }
h3 { font-size: 1.02rem; margin: 1.9rem 0 .2rem }
p { margin: .4rem 0 .8rem; max-width: 48rem }
ul { padding-left: 1.2rem } li { margin: .35rem 0; max-width: 48rem }
a { color: var(--link) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 1rem 0 }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, monospace; background: var(--tint);
  padding: .08em .3em; border-radius: 3px }
.facts { display: flex; flex-wrap: wrap; gap: .7rem; padding: 0; margin: 1.2rem 0; list-style: none }
.facts li { background: var(--tint); border-radius: 8px; padding: .5rem .95rem; margin: 0;
  color: var(--soft); font-size: .86rem }
.facts b { display: block; color: var(--ink); font-size: 1.15rem }
.wide { overflow-x: auto; margin: .5rem 0 1rem }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .36rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; vertical-align: top }
th { font-weight: 600 }
tr > :first-child { text-align: left; padding-left: .1rem; position: sticky; left: 0;
  background: var(--paper) }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom }
small { display: block; color: var(--soft); font-weight: 400; font-size: .78rem }
td.best { font-weight: 700; background: var(--tint); box-shadow: inset 3px 0 var(--link) }
td.up { color: var(--up); font-weight: 600 } td.down { color: var(--down); font-weight: 600 }
td.soft { color: var(--soft) }
figure { margin: 1.4rem 0 2.4rem } figure svg { width: 100%; height: auto; display: block }
figcaption { color: var(--soft); font-size: .9rem; max-width: 48rem; margin-top: .4rem }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--link) }
@media print { body { max-width: none } }
"""


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
            parts += [
                f"### {plot.title}\n\n![{plot.title}]({pictures}/{plot.slug}.svg)\n\n{plot.caption}"
                for plot in section.plots
            ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_html(self) -> str:
        """Return the report as one page: style and pictures inside, nothing fetched, no script."""
        title = html.escape(self.title)
        facts = "".join(
            f"<li><b>{html.escape(value)}</b>{html.escape(name)}</li>" for name, value in self.facts
        )
        links = "".join(f'<a href="#s{i}">{html.escape(s.title)}</a>' for i, s in enumerate(self.sections))
        body = "\n".join(_section(i, section) for i, section in enumerate(self.sections))
        about = "\n".join(_paragraphs(self.description.split("\n\n")))
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n<title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
            f"<style>{svg.STYLE}{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{about}\n"
            f'<ul class="facts">{facts}</ul>\n<nav>{links}</nav>\n{body}\n</body>\n</html>\n'
        )


def _section(index: int, section: Section) -> str:
    parts = [f'<h2 id="s{index}">{html.escape(section.title)}</h2>', *_paragraphs(section.lines)]
    for heading, bullets in section.lists:
        parts += [f"<h3>{html.escape(heading)}</h3>"] if heading else []
        parts.append("<ul>" + "".join(f"<li>{inline(bullet)}</li>" for bullet in bullets) + "</ul>")
    parts += [table.to_html() for table in section.tables]
    parts += [_figure(plot) for plot in section.plots]
    return "\n".join(parts)


def _figure(plot: Plot) -> str:
    caption = f"<figcaption>{inline(plot.caption)}</figcaption>"
    return f'<figure id="{plot.slug}">\n{plot.drawing}\n{caption}\n</figure>'


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [f"<p>{inline(line.strip())}</p>" for line in lines if line.strip()]
