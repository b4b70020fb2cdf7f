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
        Literal["gender", "age", "occupation", "genre"],
        typer.Option(help="The attribute that makes domains."),
    ] = "gender",
    path: Annotated[
        Path | None, typer.Option(help="GroupLens's ml-1m.zip or folder, instead of a download.")
    ] = None,
    positive_rating: Annotated[
        int, typer.Option(min=1, max=5, help="The lowest rating that counts as a click.")
    ] = 5,
    as_json: JsonFlag = False,
) -> None:
    """Import MovieLens-1M (for research use; GroupLens's terms apply).

    Example: mmlora data movielens --domain-by occupation
    """
    from mmlora.pipeline.data import import_movielens

    _print_import(import_movielens(domain_by=domain_by, path=path, positive_rating=positive_rating), as_json)


@app.command("import")
def import_(
    interactions: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Parquet or CSV files, folders, globs: user_id, item_id, domain_id, event_timestamp, label."
        ),
    ] = None,
    users: Annotated[
        list[Path] | None,
        typer.Option(help="User profiles: user_id and any columns; repeat the option for more files."),
    ] = None,
    items: Annotated[list[Path] | None, typer.Option(help="Item profiles: item_id and any columns.")] = None,
    domains: Annotated[
        list[Path] | None, typer.Option(help="Domain profiles: domain_id and any columns.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="mmlora's column and yours, e.g. --column label=clicked; repeatable."),
    ] = None,
    replace: Annotated[
        Literal["day", "domain-day"] | None,
        typer.Option(help="Withdraw stored rows of the delivery's days (domain-days) that it does not have."),
    ] = None,
    day: Annotated[
        list[str] | None,
        typer.Option(help="With --replace day: a day to replace even if the delivery has no rows of it."),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Treat late interactions as known when they happened.")
    ] = False,
    valid_from: Annotated[
        list[str] | None,
        typer.Option(help="When profiles became valid: users=COLUMN, a date, first-interaction or import."),
    ] = None,
    list_: Annotated[
        list[str] | None,
        typer.Option("--list", help="A text column of lists, and its separator: --list users.tags=,"),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A CSV column to read as text: --text users.code")
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(help="Text for a missing value in CSV files, in addition to NA and the like."),
    ] = None,
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"], typer.Option(help="Unit of numeric times, counted from 1970.")
    ] = "s",
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of CSV files; default: by byte-order mark, else UTF-8.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Delimiter of CSV files; default: detected from the header.")
    ] = None,
    decimal: Annotated[str, typer.Option(help="Decimal point of CSV files: . or ,")] = ".",
    as_json: JsonFlag = False,
) -> None:
    """Import your own interactions and profiles, or only profiles; every profile column becomes a feature.

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
    """Return the NAME=VALUE pairs of a repeatable option."""
    from mmlora.errors import UsageError

    pairs = [text.partition("=") for text in texts or []]
    if wrong := ["".join(parts) for parts in pairs if not all(parts)]:
        raise UsageError(f"{option} {wrong[0]}: give {form}")
    return {name: value for name, _, value in pairs}


@app.command()
def synthetic(
    domains: Annotated[int, typer.Option(help="Number of domains.")] = 20,
    users: Annotated[int, typer.Option(help="Number of users.")] = 2000,
    items: Annotated[int, typer.Option(help="Number of items.")] = 1000,
    rows: Annotated[int, typer.Option(help="Number of interactions.")] = 200_000,
    days: Annotated[int, typer.Option(help="Number of days, from 2020-01-01 on.")] = 60,
    diversity: Annotated[
        float, typer.Option(help="0: all domains behave alike; 1: they have nothing in common.")
    ] = 0.5,
    sparsity: Annotated[
        float, typer.Option(help="0: equal sizes; 1: the largest has 1,000 times the rows of the smallest.")
    ] = 0.5,
    families: Annotated[
        int | None,
        typer.Option(help="Number of families of domains that behave alike; default: one per domain."),
    ] = None,
    vectors: Annotated[
        int | None,
        typer.Option(help="Width of profile vectors, which each domain matches differently; default: none."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Import synthetic domains whose best reachable AUC is known: each row's true probability is kept.

    Example: mmlora data synthetic --domains 20 --diversity 0.8 --sparsity 0.7

    Domains that differ in how they match vectors of users and items, like the themes of Taobao's log:
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
    days: Annotated[int, typer.Option(help="Number of days to import, from 2026-01-01 on.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """Import a synthetic shop of 12 markets with few clicks, long tails, cold products and rich profiles.

    The interactions of the day after and the true click probabilities are not imported; they are in the
    folder shop of the workspace.

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
    themes: Annotated[
        int, typer.Option(help="Number of themes, the largest; 10, 20 or 30 in the benchmarks.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the sampled negatives, 2 to 5 per click.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Import Taobao's theme click log (Tianchi data set 9716); tested on synthetic rows only.

    Example: mmlora data taobao --path theme-click-log --themes 20
    """
    from mmlora.pipeline.data import import_taobao

    report = import_taobao(path, themes=themes, seed=seed)
    _print_import(report, as_json)
    if not as_json:
        columns = tuple(report.sampling[0])
        rows = [tuple(row.values()) for row in report.sampling]
        print_table("sampled negatives by theme", columns, rows)


@app.command("accept-files")
def accept_files(as_json: JsonFlag = False) -> None:
    """Accept the stored files as they are now, after some were lost or changed, and list those files.

    Import their rows again afterwards (`mmlora data import --history`). Unreadable files are moved to
    `offline/damaged`.

    Example: mmlora data accept-files
    """
    from mmlora.pipeline.data import accept_files as run

    faults = run()
    if as_json:
        print_json({"accepted": faults})
        return
    for fault in faults:
        typer.echo(f"accepted: {fault}")
    typer.echo(f"files that differ from what was stored: {len(faults)}")


def _print_best(best: BestReachable) -> None:
    rows = [(name, own.rows, own.ctr, own.auc, own.shared_auc) for name, own in best.by_domain.items()]
    total = sum(own.rows for own in best.by_domain.values())
    all_domains = ("all (wauc)", total, None, best.wauc, best.shared_wauc)
    headers = ("domain", "rows", "ctr", "best auc", "auc of the shared part")
    print_table("best reachable auc, i.e. of the true probability", headers, [*rows, all_domains])


def _print_import(report: ImportReport, as_json: bool) -> None:
    from mmlora.pipeline.data import TablesReport

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
    if isinstance(report, TablesReport) and report.columns:
        facts = [vars(column) for column in report.columns]
        print_table("columns", tuple(facts[0]), [tuple(own.values()) for own in facts])
    elif report.ignored_columns:
        typer.echo("unused columns of the interactions: " + ", ".join(report.ignored_columns))
    for note in report.notes:
        typer.echo(f"note: {note}")
