"""``mmlora init`` and ``mmlora migrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlora_cli.output import JsonFlag, print_json


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(init)
    app.command()(migrate)


def init(as_json: JsonFlag = False) -> None:
    """Make the workspace: its folder and a commented mmlora.toml.

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
            help="Use the database at warehouse_url from now on, though it is empty or another warehouse.",
        ),
    ] = False,
    reader_role: Annotated[
        str | None,
        typer.Option(
            "--reader-role",
            metavar="NAME",
            help="On PostgreSQL: have this role read the views and nothing else; make it if there is none.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring the warehouse's tables and views up to this version, and the settings' promises into them.

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
            typer.echo(f"the role {reader_role} may read its views, and nothing else")
