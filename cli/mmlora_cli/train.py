"""``mmlora train`` and ``swap``."""

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
    from mmlora.pipeline.training_summary import TrainingSummary
    from mmlora.runs.evaluation import PhaseMetrics
    from mmlora.runs.exchange import ExchangeReport
    from mmlora.runs.tuning_record import TuningRecord


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command()(swap)


@with_training_settings
def train(
    as_of: AsOfText,
    phase: Annotated[
        Literal["backbone", "experts", "gate", "all"],
        typer.Argument(help="The last phase to train; phases that are already trained are kept."),
    ] = "all",
    domain: DomainOption = None,
    base: Annotated[
        str | None,
        typer.Option(help="With `experts` and --domain: the version to train them on, or `champion`."),
    ] = None,
    accept_below_baseline: AcceptBelowBaseline = False,
    tune_minutes: Annotated[
        float | None,
        typer.Option(
            "--tune", metavar="MINUTES", help="First try other settings on validation rows for this long."
        ),
    ] = None,
    as_json: JsonFlag = False,
    **choices: object,
) -> None:
    """Train backbone, experts and gate on what was known on a day, then judge and register the model.

    The first model becomes the champion; a later one is the challenger until `mmlora promote`. A model below
    its best baseline on the test rows is neither (docs/judging.md). --base trains one domain's experts anew
    and keeps every other part of a model. --tune tries values of the most important settings on validation
    rows, starting from yours, and trains in full with the best. For settings without an option, see
    docs/settings.md.

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
    """Print the results of the phases, the test metrics by phase and domain, and the judgement."""
    if result.tuning:
        _print_tuning(result.tuning)
    if result.phases:
        columns = ("phase", "domain", "metric", "start", "best", "epochs", "helped", "seconds")
        rows = [[getattr(row, column) for column in columns] for row in result.phases]
        print_table(f"training run {result.run_id}", columns, rows)
    if result.start:
        typer.echo(f"warm start: it began with the weights of {result.start}")
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
    """Print the trials, the effect of the settings that tuning changed, and how to keep them."""
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
        typer.echo("to keep these settings, put them under [training] in mmlora.toml:")
        typer.echo("\n".join(f"  {line}" for line in tuning.lines))


def _print_version(version: str, alias: str | None) -> None:
    if alias is not None:
        typer.echo(f"model version {version} is the {alias}")
        if alias == "challenger":
            typer.echo(
                f"to compare it with the champion: mmlora promote {version} --explain; to promote it if it "
                f"is better: mmlora promote {version} --by-policy"
            )
        return
    typer.echo(
        f"model version {version} is neither champion nor challenger, because it is below its best baseline; "
        f"to use it all the same: mmlora promote {version} --accept-below-baseline"
    )


def _print_overall(metrics: Mapping[str, PhaseMetrics]) -> None:
    """Print the metrics over all domains, and the domains without an AUC."""
    pooled = ("gauc", "logloss", "ne", "calibration", "ece")
    rows = [
        [phase, measured.wauc, measured.macro_auc, *(getattr(measured.pooled, name) for name in pooled)]
        for phase, measured in metrics.items()
    ]
    print_table("test split: all domains by phase", ("phase", "wauc", "macro_auc", *pooled), rows)
    if without := list(metrics.values())[-1].without_auc:
        typer.echo(
            f"auc is undefined for {len(without)} domains whose test rows all have the same label; wauc and "
            f"macro_auc leave them out: {_few(without)}"
        )


def _print_exchange(report: ExchangeReport) -> None:
    """Print the exchanged parts, the unchanged parts and domains, and the domains that use the experts."""
    domain, shared = report.domain, report.shared_with
    parts, same = ", ".join(report.exchanged) or "none", report.same_by_hash
    typer.echo(f"parts exchanged: {parts}; the other {len(report.same_parts)} are the same by hash")
    typer.echo(f"domains with no changed part: {_few(same)}")
    if shared is None:
        typer.echo(f"the gate sees the row: any domain may use the experts of {domain}, depending on the row")
    else:
        weights = [f"{sharer.domain} {sharer.weight:.3f}" for sharer in shared]
        typer.echo(f"domains that use the experts of {domain} through the gate, with weight: {_few(weights)}")


def _few(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def swap(
    domain: Annotated[str, typer.Option(help="The domain whose experts are exchanged.")],
    source: Annotated[str, typer.Option("--from", help="The version to take them from.")],
    why: Annotated[str, typer.Option(help="The reason, stored with the promotion.")] = "swapped by hand",
    as_json: JsonFlag = False,
) -> None:
    """Give one domain the experts of another version; the other parts of its champion do not change.

    Both versions must have the same backbone. The new composition becomes the champion at once, for all
    domains of the old champion; `mmlora rollback` undoes it.

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
