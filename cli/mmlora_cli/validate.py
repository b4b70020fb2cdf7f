"""``mmlora validate``: checks and domain verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mmlora_cli.options import AsOfText, parse_date
from mmlora_cli.output import JsonFlag, note, print_json, print_table

if TYPE_CHECKING:
    from mmlora.runs.verdicts import StoredVerdicts


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(validate)


def validate(as_of: AsOfText, as_json: JsonFlag = False) -> None:
    """Check the interactions, and give each domain a verdict: rich, thin, absent or broken.

    The exit status is 1 if a domain is broken, if all domains are absent, or if the last day has no rows. The
    verdicts are stored in any case, and the other domains are still trained and scored.

    Example: mmlora validate --as-of 2000-12-31
    """
    from mmlora.pipeline.validate import validate as run

    report = run(parse_date(as_of))
    if as_json:
        print_json(report.to_json())
    else:
        print_verdicts(report)
    for failure in report.day_failures:
        note(f"mmlora: {failure}")
    if not report.passed:
        raise typer.Exit(1)


def print_verdicts(report: StoredVerdicts) -> None:
    """Print the verdicts with their figures, and the reasons of those that are not rich."""
    columns = ("domain_id", "verdict", "rows", "positives", "users", "items", "density", "ctr", "policy")
    rows = [[str(row.domain_id), *(getattr(row, name) for name in columns[1:])] for row in report.domains]
    print_table(f"domain verdicts as of {report.as_of}", columns, rows)
    for row in report.domains:
        for reason in row.reasons:
            typer.echo(f"{row.domain_id}: {reason}")
    typer.echo(f"Data Docs: {report.data_docs}")
