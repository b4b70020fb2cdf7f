"""``mmlora gc``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlora_cli.output import JsonFlag, format_value, print_json, print_table, progress_bar


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(gc)


def gc(
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Nights of so many days before the newest are kept; else the setting."),
    ] = None,
    keep_loads: Annotated[
        int | None,
        typer.Option(min=0, help="Earlier published loads kept for each domain and date; else the setting."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what would be freed.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Free what nobody needs: rows of replaced and failed loads, nights and files past their retention.

    Without a retention of nights in the settings, or --keep-days, no published night goes.

    Example: mmlora gc --keep-days 400 --dry-run
    """
    from mmlora.pipeline.gc import gc as run

    with progress_bar(quiet=as_json) as progress:
        result = run(keep_days=keep_days, keep_loads=keep_loads, dry_run=dry_run, progress=progress)
    if as_json:
        print_json(result.to_json())
        return
    title, verb = ("would be freed", "would be") if dry_run else ("freed", "is")
    if not result.freed:
        typer.echo(f"nothing {verb} freed: all that is here is needed, or is too young")
        return
    rows = [[row.kind, row.count, row.rows, _size(row.bytes)] for row in result.freed]
    print_table(title, ("kind", "count", "rows", "size"), rows)
    typer.echo(f"{title}: {_size(result.bytes)} in all")


def _size(size: int | None) -> str | None:
    """Return bytes as a person reads them."""
    if size is None:
        return None
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{format_value(size)} {unit}"
        size = round(size / 1000)
    return f"{format_value(size)} GB"
