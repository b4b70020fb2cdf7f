"""``mmlora train``, ``promote``, ``rollback`` and ``swap``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmlora_cli.judgement import print_judgement
from mmlora_cli.options import (
    AcceptBelowBaseline,
    AsOfText,
    DomainOption,
    parse_date,
    with_training_settings,
)
from mmlora_cli.output import JsonFlag, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.pipeline.promote import PromotionOutcome
    from mmlora.pipeline.training_summary import TrainingSummary
    from mmlora.runs.evaluation import PhaseMetrics
    from mmlora.runs.exchange import ExchangeReport
    from mmlora.runs.tuning_record import TuningRecord


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(train)
    app.command()(promote)
    app.command()(rollback)
    app.command()(swap)


@with_training_settings
def train(
    as_of: AsOfText,
    phase: Annotated[
        Literal["backbone", "experts", "gate", "all"],
        typer.Argument(help="How far to go; phases already trained are kept."),
    ] = "all",
    domain: DomainOption = None,
    base: Annotated[
        str | None,
        typer.Option(help="With `experts` and --domain: train them on this version, or on `champion`."),
    ] = None,
    accept_below_baseline: AcceptBelowBaseline = False,
    tune_minutes: Annotated[
        float | None,
        typer.Option("--tune", metavar="MINUTES", help="Try other settings on validation rows first."),
    ] = None,
    as_json: JsonFlag = False,
    **choices: object,
) -> None:
    """Train backbone, experts and gate on what was known at a day, judge and register the model.

    The first model becomes the champion; a later one is the challenger until `mmlora promote`, unless it is
    below its best baseline on the test rows: then it is neither (docs/judging.md). With --base one domain's
    experts are trained anew on a model whose every other part stays as it is. With --tune the settings that
    matter are tried on validation rows for so many minutes, from yours on, and the best are trained in full.
    What is no option here is a setting: see docs/settings.md.

    Example: mmlora train all --as-of 2000-12-30 --backbone wdl --adaptation moe_mlora

    Example: mmlora train experts --as-of 2000-12-31 --domain farmer --base champion
    """
    from mmlora.pipeline.train import train as run

    with progress_bar(quiet=as_json) as progress:
        result = run(
            parse_date(as_of),
            phase=phase,
            domain=domain,
            base=base,
            accept_below_baseline=accept_below_baseline,
            tune_minutes=tune_minutes,
            progress=progress,
            **choices,
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_training(result)


def print_training(result: TrainingSummary) -> None:
    """Print what each phase did, and the test metrics by phase and domain."""
    if result.tuning:
        _print_tuning(result.tuning)
    if result.phases:
        columns = ("phase", "domain", "metric", "start", "best", "epochs", "helped", "seconds")
        rows = [[getattr(row, column) for column in columns] for row in result.phases]
        print_table(f"training run {result.run_id}", columns, rows)
    if result.metrics:
        tested = [[row.domain, row.rows, *row.auc.values()] for row in result.test]
        print_table("test split: auc by phase and domain", ("domain", "rows", *result.metrics), tested)
        _print_overall(result.metrics)
    if result.judgement:
        print_judgement(result.judgement)
    if result.model_version:
        _print_version(result.model_version, result.alias)
    if result.exchange:
        _print_exchange(result.exchange)


def _print_tuning(tuning: TuningRecord) -> None:
    """Print every trial, what tuning changed and gained, and how to keep it."""
    rows = [
        [
            number,
            ", ".join(f"{name} {value}" for name, value in trial.settings.items()) or "your own settings",
            trial.wauc,
            round(trial.seconds),
        ]
        for number, trial in enumerate(tuning.trials, 1)
    ]
    print_table("tuning: trials", ("trial", "settings", "validation wauc", "seconds"), rows)
    typer.echo("tuning: " + tuning.sentence.replace("; ", "\n        "))
    if tuning.lines:
        typer.echo("to train with these settings from now on, put into [training] of mmlora.toml:")
        typer.echo("\n".join(f"  {line}" for line in tuning.lines))


def _print_version(version: str, alias: str | None) -> None:
    if alias is not None:
        typer.echo(f"model version {version} is the {alias}")
        return
    typer.echo(
        f"model version {version} is neither champion nor challenger, because it is below its best baseline; "
        f"to use it all the same: mmlora promote {version} --accept-below-baseline"
    )


def _print_overall(metrics: Mapping[str, PhaseMetrics]) -> None:
    """Print what is measured over all domains, and the domains that have no auc."""
    pooled = ("gauc", "logloss", "ne", "calibration", "ece")
    rows = [
        [phase, measured.wauc, measured.macro_auc, *(getattr(measured.pooled, name) for name in pooled)]
        for phase, measured in metrics.items()
    ]
    print_table("test split: all domains by phase", ("phase", "wauc", "macro_auc", *pooled), rows)
    if without := list(metrics.values())[-1].without_auc:
        typer.echo(
            f"auc is undefined for {len(without)} domains whose test rows are of one class, which wauc and "
            f"macro_auc leave out: {_few(without)}"
        )


def _print_exchange(report: ExchangeReport) -> None:
    """Print what was exchanged, what is the same by hash, and who shares it through the gate."""
    domain, shared = report.domain, report.shared_with
    parts, same = ", ".join(report.exchanged) or "none", report.same_by_hash
    typer.echo(f"parts exchanged: {parts}; the other {len(report.same_parts)} are the same by hash")
    typer.echo(f"domains whose every part is the same: {_few(same)}")
    if shared is None:
        typer.echo(f"the gate sees the row: any domain may share the experts of {domain}, by row")
    else:
        named = [f"{sharer.domain} {sharer.weight:.3f}" for sharer in shared]
        typer.echo(f"domains that share the experts of {domain} through the gate, with weight: {_few(named)}")


def _few(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def promote(
    version: Annotated[str, typer.Argument(help="The model version, see `mmlora status`.")],
    domain: DomainOption = None,
    why: Annotated[str, typer.Option(help="The reason, kept with the promotion.")] = "promoted by hand",
    accept_below_baseline: AcceptBelowBaseline = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a model version the champion, for all domains or one.

    A version that is below its best baseline is refused without --accept-below-baseline.

    Example: mmlora promote 20001230-3fa9c1d2 --why "wauc +0.004 on the last week"
    """
    from mmlora.pipeline.promote import promote as run

    result = run(version, domain=domain, why=why, accept_below_baseline=accept_below_baseline)
    _print_promotion(result, as_json)


def rollback(
    domain: DomainOption = None,
    why: Annotated[str, typer.Option(help="The reason, kept with the promotion.")] = "rolled back by hand",
    as_json: JsonFlag = False,
) -> None:
    """Make the champion before this one the champion again.

    Example: mmlora rollback --domain farmer --why "constant scores"
    """
    from mmlora.pipeline.promote import rollback as run

    _print_promotion(run(domain=domain, why=why), as_json)


def swap(
    domain: Annotated[str, typer.Option(help="The domain whose experts are exchanged.")],
    source: Annotated[str, typer.Option("--from", help="The version that they come from.")],
    why: Annotated[str, typer.Option(help="The reason, kept with the promotion.")] = "swapped by hand",
    as_json: JsonFlag = False,
) -> None:
    """Give one domain the experts of another version, all else of its champion staying as it is.

    Both versions must share the backbone. The new composition becomes the champion at once, of every domain
    that the old one was champion of; `mmlora rollback` undoes it.

    Example: mmlora swap --domain farmer --from 20001230-3fa9c1d2
    """
    from mmlora.pipeline.swap import swap as run

    result = run(domain, source, why=why)
    if as_json:
        print_json(result.to_json())
        return
    whose = "all domains" if result.champion_of == ("all",) else _few(result.champion_of)
    typer.echo(f"{result.model_version} is the champion of {whose} (was {result.before})")
    _print_exchange(result.exchange)


def _print_promotion(result: PromotionOutcome, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        whose, before = result.domain or "all domains", result.before or "none"
        typer.echo(f"{result.model_version} is the champion of {whose} (was {before})")
