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


@app.command()
def synthetic(
    domains: Annotated[int, typer.Option(help="How many domains.")] = 20,
    users: Annotated[int, typer.Option(help="How many users.")] = 2000,
    items: Annotated[int, typer.Option(help="How many items.")] = 1000,
    rows: Annotated[int, typer.Option(help="How many interactions.")] = 200_000,
    days: Annotated[int, typer.Option(help="Days that they cover, from 2020-01-01 on.")] = 60,
    diversity: Annotated[
        float, typer.Option(help="0: all domains are alike; 1: they have nothing in common.")
    ] = 0.5,
    sparsity: Annotated[
        float, typer.Option(help="0: equal sizes; 1: the largest has 1,000 times the rows of the smallest.")
    ] = 0.5,
    families: Annotated[
        int | None, typer.Option(help="How many own parts there are, shared among the domains; one each.")
    ] = None,
    vectors: Annotated[
        int | None,
        typer.Option(
            help="Width of vectors that profiles show, which each domain matches in its own way; none shown."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Import made-up domains whose best reachable auc is known: every row's true probability is kept.

    Example: mmlora data synthetic --domains 20 --diversity 0.8 --sparsity 0.7

    Themes that differ in how they match vectors of users and items, as Taobao's log has them:
    mmlora data synthetic --vectors 32 --users 20000 --items 5000 --rows 450000 --days 30
    """
    from mmlora.pipeline.importing import import_synthetic

    report = import_synthetic(
        domains=domains,
        users=users,
        items=items,
        rows=rows,
        days=days,
        diversity=diversity,
        sparsity=sparsity,
        families=families,
        seed=seed,
        vectors=vectors,
    )
    _print_import(report, as_json)
    if not as_json:
        _print_best(report["best"])


@app.command()
def shop(
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = 1,
    scale: Annotated[
        float, typer.Option(help="1: 400,000 impressions, 20,000 users and 5,000 items; 0.1: a tenth.")
    ] = 1.0,
    days: Annotated[int, typer.Option(help="Days that are imported, from 2026-01-01 on.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """Import a made-up shop of 12 markets with few clicks, long tails, cold products and rich profiles.

    The next day's interactions and the true click probabilities are kept aside in the workspace's folder
    shop.

    Example: mmlora data shop --scale 0.1
    """
    from mmlora.pipeline.importing import import_shop

    _print_import(import_shop(seed=seed, scale=scale, days=days), as_json)


@app.command()
def taobao(
    path: Annotated[
        Path,
        typer.Option(help="Folder of theme_click_log.csv, user_embedding.csv and item_embedding.csv."),
    ],
    themes: Annotated[int, typer.Option(help="The largest themes: 10, 20 or 30 in the benchmarks.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the negatives, 2 to 5 a click.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Import Taobao's theme click log (Tianchi data set 9716, got by hand); only tried on made-up rows.

    Example: mmlora data taobao --path theme-click-log --themes 20
    """
    from mmlora.pipeline.importing import import_taobao

    report = import_taobao(path, themes=themes, seed=seed)
    _print_import(report, as_json)
    if not as_json:
        columns = tuple(report["sampling"][0])
        rows = [tuple(row.values()) for row in report["sampling"]]
        print_table("negatives drawn by theme", columns, rows)


def _print_best(best: dict[str, Any]) -> None:
    columns = ("rows", "ctr", "auc", "shared_auc")
    rows = [(name, *(found[c] for c in columns)) for name, found in best["by_domain"].items()]
    total = sum(found["rows"] for found in best["by_domain"].values())
    rows.append(("all (wauc)", total, None, best["wauc"], best["shared_wauc"]))
    headers = ("domain", "rows", "ctr", "best auc", "auc of the shared part")
    print_table("best reachable auc: that of the true probability", headers, rows)


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
