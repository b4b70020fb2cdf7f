"""``mmlora data``: load interactions and profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from mmlora.data.report import ImportReport
    from mmlora.data.synthetic import BestReachable

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
    from mmlora.pipeline.data import import_movielens

    _print_import(import_movielens(domain_by=domain_by, path=path, positive_rating=positive_rating), as_json)


@app.command("import")
def import_(
    interactions: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Parquet or CSV, folders, patterns: user_id, item_id, domain_id, event_timestamp, label."
        ),
    ] = None,
    users: Annotated[
        list[Path] | None,
        typer.Option(help="User profiles: user_id and any columns; repeat it for more files."),
    ] = None,
    items: Annotated[list[Path] | None, typer.Option(help="Item profiles: item_id and any columns.")] = None,
    domains: Annotated[
        list[Path] | None, typer.Option(help="Domain profiles: domain_id and any columns.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Our column's name and yours, e.g. --column label=clicked; repeat it."),
    ] = None,
    replace: Annotated[
        Literal["day", "domain-day"] | None,
        typer.Option(help="Withdraw stored rows of the days (of its domains) that the delivery lacks."),
    ] = None,
    day: Annotated[
        list[str] | None,
        typer.Option(
            help="With --replace day, a day that the delivery may have no rows of: it is emptied then."
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Late interactions were known when they happened.")
    ] = False,
    valid_from: Annotated[
        list[str] | None,
        typer.Option(help="Since when profiles are true: users=COLUMN, a date, first-interaction or import."),
    ] = None,
    list_: Annotated[
        list[str] | None,
        typer.Option("--list", help="A text column that holds lists, and its separator: --list users.tags=,"),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A CSV column that stays text: --text users.code")
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="What stands for a missing value in a CSV, beside NA and the like."),
    ] = None,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"], typer.Option(help="Unit of times that are numbers since 1970.")
    ] = "s",
    encoding: Annotated[str | None, typer.Option(help="Of CSV files; UTF-8 or by byte-order mark.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of CSV files; what the header shows.")] = None,
    decimal: Annotated[str, typer.Option(help="Decimal point of CSV files: . or ,")] = ".",
    as_json: JsonFlag = False,
) -> None:
    """Import your own interactions and profiles, or profiles alone; every profile column becomes a feature.

    Example: mmlora data import clicks.parquet --users users.csv --column domain_id=theme
    """
    from mmlora.data.options import ReadOptions
    from mmlora.pipeline.data import import_tables

    options = ReadOptions(
        columns=_pairs("--column", column, "OURS=YOURS, e.g. --column label=clicked"),
        lists=_pairs("--list", list_, "TABLE.COLUMN=SEPARATOR, e.g. --list users.tags=,"),
        valid_from=_pairs("--valid-from", valid_from, "TABLE=SINCE, e.g. --valid-from users=signup_date"),
        texts=tuple(text or ()),
        missing=tuple(missing or ()),
        time_unit=time_unit,
        encoding=encoding,
        delimiter=delimiter,
        decimal=decimal,
    )
    report = import_tables(
        interactions,
        users=users,
        items=items,
        domains=domains,
        options=options,
        history=history,
        replace=replace,
        days=[parse_date(text) for text in day or ()],
    )
    _print_import(report, as_json)


def _pairs(option: str, texts: list[str] | None, form: str) -> dict[str, str]:
    """Return what an option that is repeated gives, by name."""
    from mmlora.errors import UsageError

    pairs = [text.partition("=") for text in texts or []]
    if wrong := ["".join(parts) for parts in pairs if not all(parts)]:
        raise UsageError(f"{option} {wrong[0]}: write it as {form}")
    return {name: value for name, _, value in pairs}


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
    from mmlora.pipeline.data import import_synthetic

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
        _print_best(report.best)


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
    from mmlora.pipeline.data import import_shop

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
    from mmlora.pipeline.data import import_taobao

    report = import_taobao(path, themes=themes, seed=seed)
    _print_import(report, as_json)
    if not as_json:
        columns = tuple(report.sampling[0])
        rows = [tuple(row.values()) for row in report.sampling]
        print_table("negatives drawn by theme", columns, rows)


@app.command("accept-files")
def accept_files(as_json: JsonFlag = False) -> None:
    """Go on with the stored files that are there, where some were lost or changed; each of those is named.

    Import what they held again afterwards (`mmlora data import --history`). Files that can't be read are
    moved to `offline/damaged`.

    Example: mmlora data accept-files
    """
    from mmlora.pipeline.data import accept_files as run

    wrong = run()
    if as_json:
        print_json({"accepted": wrong})
        return
    for fault in wrong:
        typer.echo(f"accepted: {fault}")
    typer.echo(f"{len(wrong)} files were not as they were stored")


def _print_best(best: BestReachable) -> None:
    rows = [(name, own.rows, own.ctr, own.auc, own.shared_auc) for name, own in best.by_domain.items()]
    total = sum(own.rows for own in best.by_domain.values())
    all_domains = ("all (wauc)", total, None, best.wauc, best.shared_wauc)
    headers = ("domain", "rows", "ctr", "best auc", "auc of the shared part")
    print_table("best reachable auc: that of the true probability", headers, [*rows, all_domains])


def _print_import(report: ImportReport, as_json: bool) -> None:
    raw = report.to_json()
    if as_json:
        print_json(raw)
        return
    rows = [
        (name.replace("_", " "), value)
        for name, value in raw.items()
        if value is not None and not isinstance(value, dict | list)
    ]
    rows += [(f"profile rows, {entity}", count) for entity, count in report.profiles.items()]
    print_table("imported", ("what", "value"), rows)
    if columns := raw.get("columns"):
        print_table("columns", tuple(columns[0]), [tuple(column.values()) for column in columns])
    elif report.ignored_columns:
        typer.echo("columns of the interactions that are not used: " + ", ".join(report.ignored_columns))
    for note in report.notes:
        typer.echo(f"note: {note}")
