"""``mmlora score`` and ``mmlora backfill``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlora.names import Device, EngineName, Overridable
from mmlora_cli.options import AllowStale, DateText, DomainOption, KnownAsOfText, parse_date, parse_moment
from mmlora_cli.output import JsonFlag, note, print_candidates, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.nights.load import ScoreOptions

TopK = Annotated[int | None, typer.Option("--top-k", min=0, help="Rows kept a user; 0 keeps all.")]
ModelVersion = Annotated[
    str | None, typer.Option("--model-version", help="This version instead of the champion.")
]

EngineOption = Annotated[
    EngineName | None, typer.Option("--engine", help="Who scores: this machine, or a Ray cluster.")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", metavar="URL", help="The cluster, e.g. 10.0.0.5:6379.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(score)
    app.command()(backfill)


def score(
    date: DateText,
    domain: DomainOption = None,
    top_k: TopK = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|SQL",
            help="Score these rows of user_id, item_id (domain_id) instead of the settings' candidates; "
            "{domain} and {date} are filled in.",
        ),
    ] = None,
    known_as_of: KnownAsOfText = None,
    model_version: ModelVersion = None,
    engine: EngineOption = None,
    ray_address: RayAddress = None,
    device: Annotated[
        Device | None, typer.Option(help="Where this machine computes; auto takes a GPU if any.")
    ] = None,
    allow_stale: AllowStale = False,
    override: Annotated[
        Overridable | None, typer.Option(help="Publish although this check of the load fails.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the ledger; goes with --override.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Score, show what readers would see change, publish nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score a date's candidates and publish them, one load a domain.

    A domain that fails doesn't stop the others; the exit status is then 1 (75 when all that failed may pass
    by itself). A date that the data doesn't reach is refused, and so is a load that is far smaller than the
    last published night.

    Example: mmlora score --date 2000-12-31 --domain farmer --top-k 50
    """
    from mmlora.pipeline.diff import dry_run as rehearse
    from mmlora.pipeline.score import score_and_publish

    options: ScoreOptions = {
        "top_k": top_k,
        "pairs": pairs,
        "known_as_of": parse_moment(known_as_of),
        "model_version": model_version,
        "engine": engine,
        "ray_address": ray_address,
        "device": device,
        "allow_stale": allow_stale,
        "override": override,
        "reason": reason,
    }
    day = parse_date(date)
    with progress_bar(quiet=as_json) as progress:
        if dry_run:
            result = rehearse(day, domain=domain, progress=progress, **options)
        else:
            result = score_and_publish(day, domain=domain, progress=progress, **options).to_json()
    finish_loads(result, as_json, dry_run=dry_run)


def backfill(
    domain: Annotated[str, typer.Option(help="The domain to fill.")],
    start: Annotated[str, typer.Option(help="First date, YYYY-MM-DD.")],
    end: Annotated[str, typer.Option(help="Last date, YYYY-MM-DD, scored as well.")],
    top_k: TopK = None,
    model_version: ModelVersion = None,
    engine: EngineOption = None,
    ray_address: RayAddress = None,
    allow_stale: AllowStale = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be scored, and score nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score and publish a domain's past dates in order.

    Dates already published by this model, on candidates of the same policy and with the same --top-k, are
    left alone, so stopped in the middle the same command goes on where it was. Dates that can't be scored
    are refused, and the others go on.

    Example: mmlora backfill --domain farmer --start 2000-12-01 --end 2000-12-31 --plan
    """
    from mmlora.pipeline.backfill import backfill as run

    with progress_bar(quiet=as_json) as progress:
        result = run(
            domain,
            parse_date(start),
            parse_date(end),
            top_k=top_k,
            model_version=model_version,
            engine=engine,
            ray_address=ray_address,
            allow_stale=allow_stale,
            plan_only=plan,
            progress=progress,
        )
    if not plan:
        finish_loads(result.to_json(), as_json)
    elif as_json:
        print_json(result.to_json())
    else:
        columns = ("score_date", "action", "model_version", "reason")
        rows = [
            [row.score_date.isoformat(), row.action, row.model_version, row.reason] for row in result.plan
        ]
        print_table(f"backfill of {domain}", columns, rows)


def finish_loads(result: dict[str, Any], as_json: bool, *, dry_run: bool = False) -> None:
    """Print the loads; when one failed, end with the code that all failures share, else with 1."""
    if as_json:
        print_json(result)
    elif dry_run:
        print_dry_run(result)
    else:
        print_loads(result)
    failed = [row for row in result["loads"] if row["state"] in ("failed", "rejected", "would fail")]
    for row in failed:
        note(f"mmlora: {row['domain_id']} {row['score_date']}: {row['reason']}")
    if codes := {row["exit_code"] for row in failed}:
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _print_skipped(result: dict[str, Any]) -> None:
    for skipped in result.get("skipped", []):
        typer.echo(f"not scored: {skipped['domain_id']} ({skipped['reason']})")


def print_dry_run(result: dict[str, Any]) -> None:
    """Print what publishing would change, a column a domain."""
    print_differences("what would change", [row for row in result["loads"] if row["state"] != "would fail"])
    _print_skipped(result)
    typer.echo("nothing was published")


def print_differences(title: str, rows: list[dict[str, Any]]) -> None:
    """Print how loads differ, a line a figure and a column a domain."""
    names = (
        *("rows_before", "rows_after", "users_before", "users_after", "users_gone", "users_new"),
        *("pairs_in_both", "same_first_item", "mean_score_before", "mean_score_after"),
        *("mean_score_change", "largest_score_change"),
    )
    if rows:
        before = [
            row["before"] and f"{row['before']['score_date']} {row['before']['load_id']}" for row in rows
        ]
        lines = [["compared with", *before], *([name, *(row[name] for row in rows)] for name in names)]
        print_table(title, ("", *(str(row["domain_id"]) for row in rows)), lines)


def print_loads(result: dict[str, Any]) -> None:
    """Print one line a load, and the rate over all of them."""
    columns = (
        "domain_id",
        "score_date",
        "state",
        "users",
        "items",
        "pairs",
        "rows",
        "seconds",
        "model_version",
    )
    rows = [[str(row["domain_id"]), *(row[column] for column in columns[1:])] for row in result["loads"]]
    print_table("scored", columns, rows)
    for row in result["loads"]:
        print_candidates(str(row["domain_id"]), row.get("candidates"))
    _print_skipped(result)
    pairs, seconds = result["pairs"], result["seconds"]
    if pairs:
        typer.echo(f"{pairs:,} pairs scored and published in {seconds:.1f} s: {pairs / seconds:,.0f} pairs/s")
