"""``mmlora calibrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.pipeline.calibrate import Calibrated


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(calibrate)


def calibrate(
    domain: Annotated[
        str | None, typer.Option(help="Refit only this domain's shift, in its champion.")
    ] = None,
    all_domains: Annotated[
        bool, typer.Option("--all-domains", help="Refit the champion of all domains.")
    ] = False,
    start: Annotated[str | None, typer.Option(help="First score date to use, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last score date to use.")] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make it the champion at once instead of the challenger.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure only, and register nothing.")] = False,
    why: Annotated[str, typer.Option(help="The reason, stored with the decision.")] = (
        "calibration refitted on published nights"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Refit the champion's calibration on what users clicked of its published nights.

    It is fitted on the older nights, and registered only if the newest quarter of the dates shows it to be
    better by more than noise. All other parts of the model stay, and so does the order of scores, so the
    promotion policy, which compares auc, never promotes it: do so by hand, or use --promote.

    Example: mmlora calibrate --all-domains --dry-run
    """
    from mmlora.errors import UsageError
    from mmlora.pipeline.calibrate import calibrate as run

    if (domain is None) != all_domains:
        raise UsageError("give either --domain or --all-domains")
    with progress_bar(quiet=as_json) as progress:
        result = run(
            domain,
            start=parse_date(start) if start else None,
            end=parse_date(end) if end else None,
            promote=promote,
            dry_run=dry_run,
            why=why,
            progress=progress,
        )
    print_json(result.to_json()) if as_json else _print(result, dry_run)


def _print(result: Calibrated, dry_run: bool) -> None:
    figures = ("logloss", "ece", "calibration")
    rows = [
        [
            each.domain or "all domains",
            each.rows,
            each.clicks,
            *(getattr(side, name) for name in figures for side in (each.before, each.after)),
        ]
        for each in result.domains
    ]
    head = [f"{name}{when}" for name in figures for when in ("", " after")]
    print_table("held-out nights, before and after", ("domain", "rows", "clicks", *head), rows)
    gain = result.gain
    typer.echo(
        f"fitted on {result.rows:,} rows of {len(result.fitted)} dates, judged on {len(result.held_out)} "
        f"from {result.held_out[0]}: log loss {gain.value or 0:+.5f}, "
        f"95% {gain.low or 0:+.5f} to {gain.high or 0:+.5f}"
    )
    if result.model_version is not None:
        typer.echo(f"{result.before} with this calibration is {result.model_version}, the {result.alias}")
        if result.alias == "challenger":
            typer.echo(f"to use it: mmlora promote {result.model_version}")
    elif not result.better:
        typer.echo(f"{result.before} keeps its calibration: the new one is not better by more than noise")
    elif dry_run:
        typer.echo("nothing was registered, because this was a dry run")
