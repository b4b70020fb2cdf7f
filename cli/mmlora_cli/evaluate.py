"""``mmlora evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, note, print_json, print_table, progress_bar


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)


def evaluate(
    domain: Annotated[
        list[str] | None, typer.Option(help="This domain only; repeatable; all when left out.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First score date, YYYY-MM-DD.")] = None,
    end: Annotated[str | None, typer.Option(help="Last score date.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION|previous",
            help="Compare with this model, or with the champion before each night's.",
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Measure published nights: the default, and the only choice.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Measure published nights by what users then clicked, and keep the figures (table night_quality).

    An interaction counts if its user and item were published for its date. Ends with 1 if a night is outside
    of the limits in [quality] of the settings.

    Example: mmlora evaluate --published --start 2000-12-01 --against previous
    """
    from mmlora.errors import CheckError
    from mmlora.pipeline.evaluate import evaluate as run

    with progress_bar(quiet=as_json) as progress:
        result = run(
            domains=domain or (),
            start=parse_date(start) if start else None,
            end=parse_date(end) if end else None,
            against=against,
            progress=progress,
        )
    if as_json:
        print_json(result.to_json())
    else:
        columns = (
            "domain",
            "date",
            "model",
            "impressions",
            "scored",
            "clicks",
            "auc",
            "logloss",
            "calibration",
        )
        gain = ("against", "auc gain", "95%") if against else ()
        rows = [
            [
                *(str(night.domain_id), str(night.score_date), night.model_version),
                *(night.impressions, night.scored, night.clicks),
                *(night.auc, night.logloss, night.calibration),
                *(
                    (night.against, night.auc_gain, _interval(night.auc_gain_low, night.auc_gain_high))
                    if gain
                    else ()
                ),
            ]
            for night in result.nights
        ]
        if rows:
            print_table("published nights and what users clicked", (*columns, *gain), rows)
        for text in result.notes:
            note(text)
        if result.unlabelled:
            note(f"{result.unlabelled:,} published nights have no interactions yet: import their dates")
    if result.faults:
        raise CheckError("the quality of published nights", list(result.faults))


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.4f} to {high:.4f}"
