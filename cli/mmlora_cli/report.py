"""``mmlora report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, note, print_json


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(report)


def report(
    date: Annotated[str, typer.Option(help="The score date, YYYY-MM-DD.")],
    output: Annotated[
        Path | None, typer.Option(help="The page's file; reports/DATE.html in the workspace when left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one page about a night: verdicts, loads, lift, calibration, quality of published nights, gate.

    The page is one HTML file without scripts or links to other files. --json also prints its figures.

    Example: mmlora report --date 2001-01-01
    """
    from mmlora.pipeline.report import report as run

    written = run(parse_date(date), output=output)
    if as_json:
        print_json(written.to_json())
        return
    for text in written.report.notes:
        note(text)
    typer.echo(f"wrote {written.path}")
