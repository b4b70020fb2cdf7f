"""``mmlora validate``: checks and domain verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.options import AsOfText, parse_date
from mmlora_cli.output import JsonFlag, note, print_json, print_table

if TYPE_CHECKING:
    from mmlora.pipeline.validate import ExplainedCheck
    from mmlora.runs.verdicts import StoredVerdicts


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(validate)


def validate(
    as_of: AsOfText,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show each check with its figure, threshold, severity and owner: of the interactions, and "
            "of each domain's newest load for the date.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check the interactions, and give each domain a verdict: rich, thin, absent or broken.

    The exit status is 1 if a domain is broken, if all domains are absent, or if the last day has no rows. The
    verdicts are stored in any case, and the other domains are still trained and scored.

    Example: mmlora validate --as-of 2000-12-31 --explain
    """
    from mmlora.pipeline.validate import explain_checks
    from mmlora.pipeline.validate import validate as run

    day = parse_date(as_of)
    report = run(day)
    checks = explain_checks(day) if explain else ()
    if as_json:
        explained = {"checks": [check.to_json() for check in checks]} if explain else {}
        print_json({**report.to_json(), **explained})
    else:
        print_verdicts(report)
        _print_checks(checks)
    for failure in report.day_failures:
        note(f"mmlora: {failure}")
    if not report.passed:
        raise typer.Exit(1)


def _print_checks(checks: Sequence[ExplainedCheck]) -> None:
    """Print each check by domain, and then what failed."""
    if not checks:
        return
    columns = ("domain_id", "stage", "check", "figure", "threshold", "severity", "owner", "passed")
    rows = [[getattr(check, name) for name in columns] for check in checks]
    print_table("checks", columns, rows)
    for check in checks:
        if not check.passed:
            why = f"; overridden: {check.overridden}" if check.overridden else ""
            typer.echo(f"{check.domain_id}: {check.severity}: {check.check}: {check.detail}{why}")


def print_verdicts(report: StoredVerdicts) -> None:
    """Print the verdicts with their figures, and the reasons of those that are not rich."""
    columns = ("domain_id", "verdict", "rows", "positives", "users", "items", "density", "ctr", "policy")
    rows = [[str(row.domain_id), *(getattr(row, name) for name in columns[1:])] for row in report.domains]
    print_table(f"domain verdicts as of {report.as_of}", columns, rows)
    for row in report.domains:
        for reason in row.reasons:
            typer.echo(f"{row.domain_id}: {reason}")
    typer.echo(f"Data Docs: {report.data_docs}")
