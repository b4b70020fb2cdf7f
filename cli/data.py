"""``mmlora data``: load interactions and profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.output import JsonFlag, print_json, print_table

app = typer.Typer(help="Load interactions and profiles into the offline store.", no_args_is_help=True)


@app.command()
def movielens(
    domain_by: Annotated[
        Literal["gender", "age", "occupation", "genre"], typer.Option(help="What a domain is made of.")
    ] = "gender",
    path: Annotated[
        Path | None, typer.Option(help="GroupLens's own ml-1m.zip or folder, instead of fetching the data.")
    ] = None,
    positive_rating: Annotated[int, typer.Option(min=1, max=5, help="Ratings from here on are clicks.")] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Import MovieLens-1M (research use; GroupLens's terms apply).

    Example: mmlora data movielens --domain-by occupation
    """
    from mmlora.pipeline.importing import import_movielens

    _print_import(import_movielens(domain_by=domain_by, path=path, positive_rating=positive_rating), as_json)


@app.command("import")
def import_(
    interactions: Annotated[
        Path, typer.Argument(help="Parquet or CSV: user_id, item_id, domain_id, event_timestamp, label.")
    ],
    users: Annotated[Path | None, typer.Option(help="User profiles: user_id and any columns.")] = None,
    items: Annotated[Path | None, typer.Option(help="Item profiles: item_id and any columns.")] = None,
    domains: Annotated[Path | None, typer.Option(help="Domain profiles: domain_id and any columns.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Our column's name and yours, e.g. --column label=clicked; repeat it."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Import your own interactions and profiles; every profile column becomes a feature.

    Example: mmlora data import clicks.parquet --users users.csv --column domain_id=theme
    """
    from mmlora.errors import UsageError
    from mmlora.pipeline.importing import import_tables

    pairs = [text.partition("=") for text in column or []]
    if wrong := ["".join(parts) for parts in pairs if not all(parts)]:
        raise UsageError(f"--column {wrong[0]}: write it as OURS=YOURS, e.g. --column label=clicked")
    columns = {ours: yours for ours, _, yours in pairs}
    _print_import(
        import_tables(interactions, users=users, items=items, domains=domains, columns=columns), as_json
    )


def _print_import(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    rows = [
        (name.replace("_", " "), value)
        for name, value in report.items()
        if not isinstance(value, dict | list | tuple)
    ]
    rows += [(f"profile rows, {entity}", count) for entity, count in report.get("profiles", {}).items()]
    print_table("imported", ("what", "value"), rows)
    if report.get("ignored_columns"):
        typer.echo("columns of the interactions that are not used: " + ", ".join(report["ignored_columns"]))
