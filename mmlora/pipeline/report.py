"""``mmlora report``: one night on a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mmlora.files import write_atomically
from mmlora.nights.report.facts import NightReport
from mmlora.records import Record
from mmlora.workspace import open_workspace


@dataclass(frozen=True)
class WrittenReport(Record):
    """A night's report.

    Attributes:
        path: the page.
        report: its figures.
    """

    path: str
    report: NightReport

    def to_json(self) -> dict[str, object]:
        """Return a flat JSON-serialisable mapping."""
        return {"path": self.path, **self.report.to_json()}


def report(on: date, *, output: Path | None = None) -> WrittenReport:
    """Write a night's report as one self-contained HTML page.

    Args:
        on: the score date.
        output: the file; None writes ``reports/DATE.html`` in the workspace's folder.

    Raises:
        UsageError: nothing is known of the night.
    """
    from mmlora.nights.report.gather import gather
    from mmlora.nights.report.page import page_of

    workspace = open_workspace()
    figures = gather(workspace, on)
    path = output or workspace.home / "reports" / f"{on}.html"
    write_atomically(path, page_of(figures).to_html())
    return WrittenReport(str(path), figures)
