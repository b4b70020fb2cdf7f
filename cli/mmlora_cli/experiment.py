"""``mmlora experiment``: run a grid of cells, report on it, tune."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.output import JsonFlag, note, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.experiments.run import ExperimentOutcome, Failure
    from mmlora.experiments.tune import Gain, TuningOutcome

app = typer.Typer(
    help="Compare backbones, adaptations and controls over data sets and seeds.", no_args_is_help=True
)
FileArgument = Annotated[Path, typer.Argument(help="The experiment's TOML file: see experiments/.")]


@app.command()
def run(
    file: FileArgument,
    workers: Annotated[int, typer.Option(help="Cells run at once; the cores are divided among them.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Run the cells of an experiment that aren't done yet; stop and start it as you like.

    Example: mmlora experiment run experiments/gender.toml --workers 2
    """
    from mmlora.experiments.run import run_experiment

    tell = (lambda line: None) if as_json else note
    with progress_bar(quiet=as_json) as progress:
        result = run_experiment(file, workers=workers, progress=progress, tell=tell)
    if as_json:
        print_json(result.to_json())
    else:
        _print_run(result)
    if result.failures:
        raise typer.Exit(1)


@app.command()
def report(
    file: FileArgument,
    output: Annotated[
        Path | None, typer.Option(help="Where the pages go; the experiment's folder when left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what an experiment found, as Markdown and as one HTML page.

    Example: mmlora experiment report experiments/gender.toml --output reports
    """
    from mmlora.experiments.run import report_experiment

    pages = report_experiment(file, output)
    if as_json:
        print_json({"pages": pages})
    else:
        for page in pages:
            typer.echo(str(page))


@app.command()
def tune(
    file: FileArgument,
    trials: Annotated[
        int | None, typer.Option(help="At most so many, all runs together; the file's when left out.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="No trial begins after them, all runs together; or the file's.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Trials run at once; the cores are divided among them.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Choose settings by validation rows; test the best, and the untuned beside it.

    Example: mmlora experiment tune experiments/tune.toml --trials 20
    """
    from mmlora.experiments.tune import tune_experiment

    tell = (lambda line: None) if as_json else note
    with progress_bar(quiet=as_json) as progress:
        result = tune_experiment(
            file, trials=trials, minutes=minutes, workers=workers, progress=progress, tell=tell
        )
    if as_json:
        print_json(result.to_json())
    else:
        _print_tuning(result)
    if result.test is None:
        raise typer.Exit(1)


def _print_tuning(result: TuningOutcome) -> None:
    from mmlora.experiments.cell import shown

    best, test = result.best, result.test
    names = list(best.parameters)
    ordered = sorted(result.trials, key=lambda trial: -(trial.validation_wauc or 0.0))
    rows = [
        [trial.number, *(shown(trial.parameters.get(name)) for name in names), trial.validation_wauc]
        for trial in ordered[:10]
    ]
    print_table("validation rows: the best trials", ("trial", *names, "wauc"), rows)
    _note_failures(result.failures)
    if test is not None:
        print_table(
            "test rows, one seed", ("settings", "wauc"), [("untuned", test.untuned), ("tuned", test.tuned)]
        )
        typer.echo(_difference(test.difference))
        typer.echo(
            f"to train with them: write trial {best.number}'s settings under [training] in mmlora.toml"
        )
    typer.echo(f"{len(result.trials)} trials, {result.ran} of them now: {result.folder}")


def _difference(found: Gain | None) -> str:
    if found is None:
        return "no domain's test rows hold both classes of label, so there is no wauc to compare"
    if found.low is None:
        return f"tuning brought {found.value:+.4f} wauc; there are too few test users for an interval"
    return (
        f"tuning brought {found.value:+.4f} wauc on the test rows (95%: {found.low:+.4f} to "
        f"{found.high:+.4f}; the luck of test users, not of the seed)"
    )


def _print_run(result: ExperimentOutcome) -> None:
    rows = result.results
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    varying = [c for c in columns if len({str(row.get(c)) for row in rows}) > 1 or c in ("arm", "wauc")]
    if rows:
        print_table("test split", varying, [[row.get(name) for name in varying] for row in rows])
    if result.ran:  # else they have just been told
        _note_failures(result.failures)
    done = len(rows)
    typer.echo(f"{done} of {result.cells} cells are done, {result.ran} of them now: {result.folder}")


def _note_failures(failures: Sequence[Failure]) -> None:
    for failure in failures:
        note(f"failed: {failure.cell}: {failure.why}")
