"""``mmlora gc`` and ``mmlora erase``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlora_cli.output import JsonFlag, format_value, print_json, print_table, progress_bar


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(gc)
    app.command()(erase)


def gc(
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Keep nights of this many days before the newest; default: the setting."),
    ] = None,
    keep_loads: Annotated[
        int | None,
        typer.Option(
            min=0, help="Keep this many earlier published loads per domain and date; default: the setting."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be freed, and change nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Free what is no longer needed: rows of replaced and failed loads, expired nights and files.

    Published nights are freed only with a retention of nights in the settings or with --keep-days.

    Example: mmlora gc --keep-days 400 --dry-run
    """
    from mmlora.pipeline.gc import gc as run

    with progress_bar(quiet=as_json) as progress:
        result = run(keep_days=keep_days, keep_loads=keep_loads, dry_run=dry_run, progress=progress)
    if as_json:
        print_json(result.to_json())
        return
    title, verb = ("would be freed", "would be") if dry_run else ("freed", "was")
    if not result.freed:
        typer.echo(f"nothing {verb} freed: everything is needed or too recent")
        return
    rows = [[row.kind, row.count, row.rows, _size(row.bytes)] for row in result.freed]
    print_table(title, ("kind", "count", "rows", "size"), rows)
    typer.echo(f"{title}: {_size(result.bytes)} in all")


def _size(size: int | None) -> str | None:
    """Return a number of bytes as text for people."""
    if size is None:
        return None
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{format_value(size)} {unit}"
        size = round(size / 1000)
    return f"{format_value(size)} GB"


def erase(
    reason: Annotated[str, typer.Option(help="The reason, for the ledger of erasures.")],
    user: Annotated[list[str] | None, typer.Option(help="A user to erase; repeatable.")] = None,
    users: Annotated[
        Path | None,
        typer.Option(
            help="A file of users to erase: Parquet or CSV with a column user_id, or one id per line."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Erase users: their interactions, profiles, features, training rows, and scores of all nights.

    Features and training sets are removed as a whole and built again when they are next needed. Models are
    kept, and those trained on rows of the users are listed: train again, and `mmlora gc` removes the old
    models.

    Example: mmlora erase --user u01 --reason "request of 2026-11-30"
    """
    from mmlora.pipeline.erase import erase as run
    from mmlora.pipeline.user_file import users_in

    ids = [*(user or []), *(map(str, users_in(users)) if users else ())]
    with progress_bar(quiet=as_json) as progress:
        result = run(ids, reason=reason, progress=progress)
    if as_json:
        print_json(result.to_json())
        return
    typer.echo(
        f"erased {result.users:,} users: {result.interactions:,} interactions, "
        f"{result.profiles:,} profile rows, and {result.scores:,} scores of {result.loads:,} loads"
    )
    if not (result.interactions or result.profiles or result.scores or result.files):
        typer.echo("no rows of these users are stored: check the ids")
    if result.files:
        typer.echo(
            f"removed {result.files:,} computed files and folders (features, training sets, staged rows): "
            "the next night or training builds what it needs"
        )
    if result.models:
        typer.echo(
            f"unchanged models that were trained on rows of these users: {', '.join(result.models)}; train "
            "again and run `mmlora gc` to remove them"
        )
