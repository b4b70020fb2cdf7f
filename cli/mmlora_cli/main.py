"""``mmlora``: the entry point. Commands import what they need when they run, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Annotated, Any, NoReturn

import typer

import mmlora
from mmlora.errors import MmloraError, meaning_of
from mmlora.names import LogFormat, LogLevel
from mmlora.redaction import redact
from mmlora.telemetry.logs import json_handler, log_to_stderr, say
from mmlora_cli import (
    calibrate,
    compare,
    data,
    evaluate,
    experiment,
    explain,
    features,
    importance,
    metrics,
    nights,
    operate,
    promote,
    report,
    score,
    share,
    train,
    upkeep,
    validate,
    workspace,
)

app = typer.Typer(
    name="mmlora",
    help="Score click-through rate for many domains every night, from features in a feature store.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")
app.add_typer(experiment.app, name="experiment")
for module in (
    *(workspace, validate, train, promote, share, score, nights, compare, operate),
    *(calibrate, evaluate, explain, importance, metrics, report, upkeep),
):
    module.register(app)

_WITHOUT_WORKSPACE = ("read", "metrics")
"""Commands that read the warehouse alone."""


def _in_workspace(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that pulls the workspace first and pushes it afterwards, if it is shared."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        from mmlora.workspace import shared_workspace

        with shared_workspace():
            return command(*arguments, **options)

    return run


def _commands(group: typer.Typer) -> Iterator[Any]:
    yield from group.registered_commands
    for part in group.registered_groups:
        if part.typer_instance is not None:
            yield from _commands(part.typer_instance)


for each in _commands(app):
    if each.callback.__name__ not in _WITHOUT_WORKSPACE:
        each.callback = _in_workspace(each.callback)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmlora {mmlora.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and debug logs.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    form, level = _log_settings()
    log_to_stderr(form, "debug" if debug else level)


def _log_settings() -> tuple[LogFormat, LogLevel]:
    """Return the settings of the log lines; the defaults for `--help`, which is to be quick."""
    if not {"-h", "--help"}.intersection(sys.argv):
        from mmlora.settings import load_settings

        with suppress(MmloraError):  # the command itself says which settings are wrong
            settings = load_settings().logging
            return settings.format, settings.level
    return "text", "warning"


def main() -> NoReturn:
    """Run the command line; exit 0: success, 1: bad data or a failed check, 2: wrong usage, 75: retry."""
    debug = "--debug" in sys.argv
    try:
        app()
    except MmloraError as error:
        _fail(error, error.exit_code, debug)
    except Exception as error:
        if (known := meaning_of(error)) is not None:
            _fail(error, known.exit_code, debug, str(known))
        text = f"unexpected {type(error).__name__}: {error} (run `mmlora --debug ...` for the traceback)"
        _fail(error, 1, debug, text)
    sys.exit(0)


def _fail(error: BaseException, code: int, debug: bool, text: str = "") -> NoReturn:
    said = redact(f"mmlora: {text or error}")
    if (handler := json_handler()) is not None:
        say(handler, said, error, with_traceback=debug)
    else:
        if debug:
            import traceback

            typer.echo(redact("".join(traceback.format_exception(error))), err=True)
        typer.echo(said, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
