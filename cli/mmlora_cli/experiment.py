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
    workers: Annotated[int, typer.Option(help="Number of cells run at once, which share the cores.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Run the cells of an experiment that are not done yet; a run that was stopped resumes.

    Example: mmlora experiment run experiments/gender.toml --workers 2
    """
    from mmlora.experiments.run import run_experiment

    log = (lambda line: None) if as_json else note
    with progress_bar(quiet=as_json) as progress:
        result = run_experiment(file, workers=workers, progress=progress, log=log)
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
        Path | None, typer.Option(help="Folder for the report; default: in the experiment's folder.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the report of an experiment, as Markdown and as one HTML page.

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
        int | None, typer.Option(help="Maximum number of trials, over all runs; default: the file's.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Start no trial after this time, over all runs; default: the file's."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of trials run at once, which share the cores.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Choose settings on validation rows, then test the best beside the untuned settings.

    Example: mmlora experiment tune experiments/tune.toml --trials 20
    """
    from mmlora.experiments.tune import tune_experiment

    log = (lambda line: None) if as_json else note
    with progress_bar(quiet=as_json) as progress:
        result = tune_experiment(
            file, trials=trials, minutes=minutes, workers=workers, progress=progress, log=log
        )
    if as_json:
        print_json(result.to_json())
    else:
        _print_tuning(result)
    if result.test is None:
        raise typer.Exit(1)


def _print_tuning(result: TuningOutcome) -> None:
    from mmlora.experiments.cell import value_text

    best, test = result.best, result.test
    names = list(best.parameters)
    ordered = sorted(result.trials, key=lambda trial: -(trial.validation_wauc or 0.0))
    rows = [
        [trial.number, *(value_text(trial.parameters.get(name)) for name in names), trial.validation_wauc]
        for trial in ordered[:10]
    ]
    print_table("validation rows: the best trials", ("trial", *names, "wauc"), rows)
    _note_failures(result.failures)
    if test is not None:
        print_table(
            "test rows, one seed", ("settings", "wauc"), [("untuned", test.untuned), ("tuned", test.tuned)]
        )
        typer.echo(_difference(test.difference))
        typer.echo(f"to train with them: put trial {best.number}'s settings under [training] in mmlora.toml")
    typer.echo(f"{len(result.trials)} trials, {result.ran} of them in this run: {result.folder}")


def _difference(gain: Gain | None) -> str:
    if gain is None:
        return "no domain's test rows have both labels, so there is no wauc to compare"
    if gain.low is None:
        return f"tuning changed wauc by {gain.value:+.4f}; there are too few test users for an interval"
    return (
        f"tuning changed wauc by {gain.value:+.4f} on the test rows (95% interval {gain.low:+.4f} to "
        f"{gain.high:+.4f}, for the choice of test users but not of the seed)"
    )


def _print_run(result: ExperimentOutcome) -> None:
    rows = result.results
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    varying = [c for c in columns if len({str(row.get(c)) for row in rows}) > 1 or c in ("arm", "wauc")]
    if rows:
        print_table("test split", varying, [[row.get(name) for name in varying] for row in rows])
    if result.ran:  # otherwise the log has just shown them
        _note_failures(result.failures)
    done = len(rows)
    typer.echo(f"{done} of {result.cells} cells are done, {result.ran} of them in this run: {result.folder}")


def _note_failures(failures: Sequence[Failure]) -> None:
    for failure in failures:
        note(f"failed: {failure.cell}: {failure.why}")
