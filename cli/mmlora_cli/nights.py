"""``mmlora publish``, ``unpublish``, ``restore`` and ``diff``: what readers get of a night, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, print_json
from mmlora_cli.score import print_differences

if TYPE_CHECKING:
    from mmlora.pipeline.status import LoadStatus

LoadId = Annotated[str, typer.Argument(metavar="LOAD", help="The load, see `mmlora status --domain`.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(publish)
    app.command()(unpublish)
    app.command()(restore)
    app.command()(diff)


def publish(load: LoadId, as_json: JsonFlag = False) -> None:
    """Publish a staged load again that a lock, a full disk or a kill stopped on its way to readers.

    A load that is published already is left as it is.

    Example: mmlora publish 2000-12-31-1-3fa9c1d2e4b5
    """
    from mmlora.pipeline.publish import publish as run
    from mmlora.pipeline.status import load_state

    result = load_state(run(load))
    if result.state == "superseded" and not as_json:
        typer.echo(f"{load} is superseded: readers follow, or followed, a later load (see mmlora restore)")
    else:
        _print(result, f"readers of {result.domain_id} have {load} for {result.score_date}", as_json)


def unpublish(
    domain: Annotated[str, typer.Option(help="The domain.")],
    date: Annotated[str, typer.Option(help="The score date, YYYY-MM-DD.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    as_json: JsonFlag = False,
) -> None:
    """Take back what readers have of a domain and date; its rows stay, so `mmlora restore` undoes it.

    Example: mmlora unpublish --domain farmer --date 2000-12-31 --reason "prices of the day before"
    """
    from mmlora.pipeline.unpublish import unpublish as run

    result = run(domain, parse_date(date), reason=reason)
    _print(result, f"{result.load_id} is taken back: nothing is published of {domain} for {date}", as_json)


def restore(
    load: LoadId,
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")] = "restored by hand",
    as_json: JsonFlag = False,
) -> None:
    """Give readers a load back that they had before.

    Example: mmlora restore 2000-12-31-1-3fa9c1d2e4b5 --reason "the rerun was worse"
    """
    from mmlora.pipeline.unpublish import restore as run

    result = run(load, reason=reason)
    _print(result, f"readers of {result.domain_id} have {load} for {result.score_date}", as_json)


def diff(
    domain: Annotated[str | None, typer.Option(help="The domain, unless a load is given.")] = None,
    date: Annotated[str | None, typer.Option(help="Its published night; the newest when left out.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with this published night; the one before when left out.")
    ] = None,
    load: Annotated[
        str | None, typer.Option(help="A load, staged or of before, instead of a published night.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how a night's scores differ from those before, or a load's from what readers have.

    Example: mmlora diff --domain farmer --date 2000-12-31
    """
    from mmlora.pipeline.diff import diff as run

    nights = {name: parse_date(text) if text else None for name, text in (("on", date), ("against", against))}
    result = run(domain, load_id=load, **nights)
    if as_json:
        print_json(result.to_json())
    else:
        title = f"what {result.after.load_id} of {result.after.score_date} changes"
        print_differences(title, [(result.domain_id, result.before, result.rows)])


def _print(result: LoadStatus, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(f"{sentence}; the newest date published is {result.latest or 'none'}")
