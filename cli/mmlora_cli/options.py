"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from mmlora.dates import FIRST, LAST
from mmlora.dates import parse_date as parse_date
from mmlora.errors import UsageError
from mmlora.hyperparameters import OFFERED, SETTINGS
from mmlora.hyperparameters.setting import Declared


def parse_moment(text: str | None) -> datetime | None:
    """Parse an ISO time as a UTC datetime; a time without a zone is UTC."""
    from datetime import UTC

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a time: give e.g. 2001-01-02T03:00:00Z") from None
    if not FIRST <= moment.date() <= LAST:
        raise UsageError(f"{text} is out of range: give a time from {FIRST} to {LAST}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


HomeOption = Annotated[
    Path | None, typer.Option(help="The workspace; default: the setting. Its data folder is not needed.")
]
UrlOption = Annotated[str | None, typer.Option(metavar="URL", help="The warehouse, instead of a workspace.")]
DomainOption = Annotated[str | None, typer.Option("--domain", help="Only this domain; default: all domains.")]
DateText = Annotated[str, typer.Option("--date", help="The date to score, YYYY-MM-DD.")]
AsOfText = Annotated[
    str, typer.Option("--as-of", help="Use what was known on this day at 00:00 UTC, YYYY-MM-DD.")
]
AcceptBelowBaseline = Annotated[
    bool,
    typer.Option("--accept-below-baseline", help="Accept a model that is below its best baseline."),
]
AllowStale = Annotated[
    bool, typer.Option("--allow-stale", help="Score a date even if the data does not reach it.")
]
KnownAsOfText = Annotated[
    str | None,
    typer.Option("--known-as-of", help="Use features known by this time instead of the date's 00:00 UTC."),
]


Command = TypeVar("Command", bound=Callable[..., None])


def with_training_settings(command: Command) -> Command:
    """Add an option for each training setting that is offered to a command with ``**choices``."""
    own = signature(command, eval_str=True)
    parameters = [
        parameter for parameter in own.parameters.values() if parameter.kind is not Parameter.VAR_KEYWORD
    ]
    with_options = own.replace(parameters=[*parameters, *_setting_options()])
    command.__signature__ = with_options  # type: ignore[attr-defined]
    return command


def _setting_options() -> Iterator[Parameter]:
    for name in OFFERED:
        declared = SETTINGS[name]
        kind: Any = declared.plain
        option = Annotated[kind | None, _option(declared)]
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _option(declared: Declared) -> object:
    least = declared.bounds.ge if declared.bounds else None
    switch = (declared.setting.switch,) if declared.setting.switch else ()
    return typer.Option(*switch, min=least, help=declared.setting.sentence)
