"""``mmlora score`` and ``mmlora backfill``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlora.errors import UsageError
from mmlora.names import BackfillState, Device, EngineName, KnownAsOf
from mmlora_cli.options import AllowStale, DateText, DomainOption, KnownAsOfText, parse_date, parse_moment
from mmlora_cli.output import JsonFlag, note, print_candidates, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.nights.load import ScoreOptions
    from mmlora.pipeline.differences import ComparedLoad, DryRun, RehearsedLoad, RowDifference
    from mmlora.pipeline.outcomes import BackfillOutcome, LoadOutcome, NightOutcome, SkippedDomain
    from mmlora.pipeline.shadow import ShadowNight, ShadowOutcome

TopK = Annotated[int | None, typer.Option("--top-k", min=0, help="Rows kept per user; 0 keeps all.")]
ModelVersion = Annotated[
    str | None, typer.Option("--model-version", help="The model version; default: the champion.")
]

EngineOption = Annotated[
    EngineName | None, typer.Option("--engine", help="Score on this machine or on a Ray cluster.")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", metavar="URL", help="The Ray cluster, e.g. 10.0.0.5:6379.")
]

Override = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="CHECK", help="Publish even if this check fails; may be repeated."),
]
OverrideReason = Annotated[
    str | None, typer.Option("--reason", help="The reason for --override, for the ledger.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
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
            help="Score these pairs of user_id, item_id (and domain_id) instead of the settings' candidates; "
            "{domain} and {date} are replaced.",
        ),
    ] = None,
    known_as_of: KnownAsOfText = None,
    model_version: ModelVersion = None,
    engine: EngineOption = None,
    ray_address: RayAddress = None,
    device: Annotated[
        Device | None, typer.Option(help="The device on this machine; auto uses a GPU if there is one.")
    ] = None,
    allow_stale: AllowStale = False,
    override: Override = None,
    reason: OverrideReason = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Score, and show what would change for readers; publish nothing."),
    ] = False,
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION|challenger",
            help="Score by this model into loads that readers never see, for `mmlora compare --shadow`.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a date's candidates and publish them, one load per domain.

    A domain that fails does not stop the others; the exit status is then 1 (75 if a retry may help for all
    that failed). A date that the data does not reach is refused, and so is a load that is far smaller than
    the last published night.

    Example: mmlora score --date 2000-12-31 --domain farmer --top-k 50
    """
    from mmlora.pipeline.compare import dry_run as rehearse
    from mmlora.pipeline.score import score_and_publish
    from mmlora.pipeline.shadow import score_shadow

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
    if shadow is not None and (dry_run or model_version):
        raise UsageError("--shadow names the model and publishes nothing: give it without the other option")
    with progress_bar(quiet=as_json) as progress:
        result: NightOutcome | DryRun | ShadowNight
        if shadow is not None:
            result = score_shadow(day, shadow, domain=domain, progress=progress, **options)
        elif dry_run:
            result = rehearse(day, domain=domain, progress=progress, **options)
        else:
            result = score_and_publish(day, domain=domain, progress=progress, **options)
    _finish(result, as_json)


def backfill(
    domain: Annotated[
        list[str] | None, typer.Option(help="A domain to fill; repeat the option for several.")
    ] = None,
    all_domains: Annotated[bool, typer.Option("--all-domains", help="Fill all domains.")] = False,
    start: Annotated[str | None, typer.Option(help="First date, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last date, YYYY-MM-DD, inclusive.")] = None,
    state: Annotated[
        BackfillState,
        typer.Option(
            help="Only nights in this state; late: those that late rows would change, each by its own model."
        ),
    ] = "all",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "--model-version",
            metavar="VERSION",
            help="champion, champion-at-the-time (in force when the night began), or a version.",
        ),
    ] = "champion",
    known_as_of: Annotated[
        KnownAsOf,
        typer.Option(help="Use what was known at the night's 00:00 UTC, or also rows that came later."),
    ] = "then",
    top_k: TopK = None,
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="Leave out nights that would exceed this estimated number of rows."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    engine: EngineOption = None,
    ray_address: RayAddress = None,
    allow_stale: AllowStale = False,
    override: Override = None,
    reason: OverrideReason = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be scored, and score nothing.")
    ] = False,
    save_plan: Annotated[
        Path | None, typer.Option("--save-plan", help="With --plan: write the plan to this file.")
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option("--apply", help="Execute a saved plan, unless something has changed since."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Score and publish past nights that are missing, stale or failed.

    A night is current, and kept, if this model has published it with the same policy of candidates and the
    same --top-k; so the same command resumes a backfill that was stopped. Nights that cannot be scored are
    refused, and the others are scored.

    Example: mmlora backfill --domain farmer --start 2000-12-01 --end 2000-12-31 --plan
    """
    from mmlora.pipeline.backfill import apply_plan
    from mmlora.pipeline.backfill import backfill as run
    from mmlora.pipeline.backfill import save_plan as save

    _check_backfill(domain, all_domains, start, end, plan, save_plan, apply)
    with progress_bar(quiet=as_json) as progress:
        if apply is not None:
            result = apply_plan(apply, jobs=jobs, progress=progress, engine=engine, ray_address=ray_address)
        else:
            result = run(
                domain or None,
                parse_date(start or ""),
                parse_date(end or ""),
                state=state,
                model=model,
                known_as_of=known_as_of,
                top_k=top_k,
                max_rows=max_rows,
                jobs=jobs,
                allow_stale=allow_stale,
                override=override,
                reason=reason,
                plan_only=plan,
                progress=progress,
                engine=engine,
                ray_address=ray_address,
            )
    if save_plan is not None:
        save(result, save_plan)
    if as_json:
        print_json(result.to_json())
    elif plan:
        _print_plan(result)
    elif result.night is not None:
        print_loads(result.night)
    fail_with(result.loads)


def _check_backfill(
    domain: list[str] | None,
    all_domains: bool,
    start: str | None,
    end: str | None,
    plan: bool,
    save_plan: Path | None,
    apply: Path | None,
) -> None:
    """Refuse options that cannot be combined (``UsageError``)."""
    if save_plan is not None and not plan:
        raise UsageError("--save-plan needs --plan")
    if apply is not None:
        if domain or all_domains or start or end or plan:
            raise UsageError("--apply takes domains and dates from the saved plan: give it without them")
        return
    if bool(domain) == all_domains:
        raise UsageError("give the domains to fill: --domain NAME, repeated for several, or --all-domains")
    if not start or not end:
        raise UsageError("--start and --end are required: the first and the last date, YYYY-MM-DD")


def _print_plan(result: BackfillOutcome) -> None:
    columns = ("domain", "date", "state", "action", "model", "rows", "seconds", "reason")
    rows = [
        [
            *(night.domain_id, night.score_date.isoformat(), night.state, night.action),
            *(night.model_version, night.rows, night.seconds, night.reason),
        ]
        for night in result.plan
    ]
    print_table("backfill", columns, rows)
    to_score = [night for night in result.plan if night.action == "score"]
    note(
        f"{len(to_score):,} of {len(result.plan):,} nights to score: about "
        f"{sum(night.rows or 0 for night in to_score):,} rows in "
        f"{sum(night.seconds or 0 for night in to_score):,.0f} s, estimated from the last loads"
    )


def _finish(result: NightOutcome | DryRun | ShadowNight, as_json: bool) -> None:
    from mmlora.pipeline.outcomes import NightOutcome
    from mmlora.pipeline.shadow import ShadowNight

    if as_json:
        print_json(result.to_json())
    elif isinstance(result, NightOutcome):
        print_loads(result)
    elif isinstance(result, ShadowNight):
        _print_shadow(result)
    else:
        _print_dry_run(result)
    fail_with(result.loads)


def fail_with(loads: Sequence[LoadOutcome | RehearsedLoad | ShadowOutcome]) -> None:
    """If loads failed, list them and exit with their common exit status, else with 1."""
    failed = [load for load in loads if load.state in ("failed", "rejected", "would fail")]
    for load in failed:
        note(f"mmlora: {load.domain_id} {load.score_date}: {load.reason}")
    if codes := {load.exit_code for load in failed}:
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _print_shadow(result: ShadowNight) -> None:
    columns = ("domain_id", "score_date", "state", "rows", "model_version", "load_id", "seconds")
    print_table("scored", columns, [[getattr(load, name) for name in columns] for load in result.loads])
    _print_skipped(result.skipped)
    if shadows := [load for load in result.loads if load.state == "shadow"]:
        typer.echo(
            f"nothing was published; to compare: mmlora compare --shadow --date {shadows[0].score_date}"
        )


def _print_skipped(skipped: Sequence[SkippedDomain]) -> None:
    for domain in skipped:
        typer.echo(f"not scored: {domain.domain_id} ({domain.reason})")


def _print_dry_run(result: DryRun) -> None:
    """Print what publishing would change, one column per domain."""
    compared = [(load.domain_id, load.before, load.rows) for load in result.loads if load.rows is not None]
    print_differences("what would change", compared)
    _print_skipped(result.skipped)
    typer.echo("nothing was published")


def print_differences(title: str, compared: Sequence[tuple[str, ComparedLoad | None, RowDifference]]) -> None:
    """Print how loads differ, one line per figure and one column per domain.

    Args:
        title: title of the table.
        compared: each domain's name, the load that it is compared with, and the difference.
    """
    names = (
        *("rows_before", "rows_after", "users_before", "users_after", "users_gone", "users_new"),
        *(
            "pairs_in_both",
            "same_first_item",
            "top_10_changed",
            "top_10_overlap",
            "mean_score_before",
            "mean_score_after",
        ),
        *("mean_score_change", "largest_score_change"),
    )
    if compared:
        loads = [before and f"{before.score_date} {before.load_id}" for _, before, _ in compared]
        figures = [[name, *(getattr(rows, name) for _, _, rows in compared)] for name in names]
        columns = ("", *(domain for domain, _, _ in compared))
        print_table(title, columns, [["compared with", *loads], *figures])


def print_loads(night: NightOutcome) -> None:
    """Print one line per load, and the rate over all loads."""
    columns = [
        "domain_id",
        "score_date",
        "state",
        "users",
        "items",
        "pairs",
        "rows",
        "seconds",
        "model_version",
    ]
    if any(load.top_10_changed is not None for load in night.loads):
        columns += ["top_10_changed", "mean_score_change"]
    print_table("scored", columns, [[getattr(load, name) for name in columns] for load in night.loads])
    for load in night.loads:
        print_candidates(load.domain_id, load.candidates)
        for taken in filter(None, (load.resumed, load.carried)):
            typer.echo(f"{load.domain_id}: {taken}")
    _print_skipped(night.skipped)
    pairs, seconds = night.pairs, night.seconds
    if pairs:
        typer.echo(f"{pairs:,} pairs scored and published in {seconds:.1f} s: {pairs / seconds:,.0f} pairs/s")
