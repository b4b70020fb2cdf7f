"""``mmlora init`` and ``mmlora migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlora_cli.output import JsonFlag, print_json


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(init)
    app.command()(migrate)


def init(as_json: JsonFlag = False) -> None:
    """Create the workspace: its folder and a commented mmlora.toml.

    Example: mmlora init
    """
    from mmlora.pipeline.init import init_workspace

    result = init_workspace()
    if as_json:
        print_json(result.to_json())
        return
    typer.echo(f"workspace {result.home}, settings {result.settings}")
    typer.echo("next: mmlora data movielens --domain-by occupation, or mmlora data import INTERACTIONS")


def migrate(
    accept_warehouse: Annotated[
        bool,
        typer.Option(
            "--accept-warehouse",
            help="Use the database at warehouse_url from now on, even if it is empty or another warehouse.",
        ),
    ] = False,
    reader_role: Annotated[
        str | None,
        typer.Option(
            "--reader-role",
            metavar="NAME",
            help="On PostgreSQL: let this role read only the views; it is created if it does not exist.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Upgrade the warehouse's tables and views to this version, and store the settings' promises in them.

    Example: mmlora migrate

    Example: mmlora migrate --reader-role ranking
    """
    from mmlora.pipeline.migrate import migrate_warehouse

    result = migrate_warehouse(accept=accept_warehouse, reader_role=reader_role)
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(f"warehouse {result.url} is at revision {result.revision}")
        if reader_role is not None:
            typer.echo(f"the role {reader_role} may read the views and nothing else")
