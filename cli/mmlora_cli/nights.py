"""``mmlora publish``, ``unpublish`` and ``restore``: change what readers see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from mmlora.pipeline.status import LoadStatus

LoadId = Annotated[str, typer.Argument(metavar="LOAD", help="The load, see `mmlora status --domain`.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(publish)
    app.command()(unpublish)
    app.command()(restore)


def publish(load: LoadId, as_json: JsonFlag = False) -> None:
    """Publish a staged load whose publication was stopped by a lock, a full disk or a kill.

    A load that is already published does not change.

    Example: mmlora publish 2000-12-31-1-3fa9c1d2e4b5
    """
    from mmlora.pipeline.publish import publish as run
    from mmlora.pipeline.status import load_state

    result = load_state(run(load))
    if result.state == "superseded" and not as_json:
        typer.echo(f"{load} is superseded by a later load (to publish it all the same: mmlora restore)")
    else:
        _print(result, f"readers of {result.domain_id} see {load} for {result.score_date}", as_json)


def unpublish(
    domain: Annotated[str, typer.Option(help="The domain.")],
    date: Annotated[str, typer.Option(help="The score date, YYYY-MM-DD.")],
    reason: Annotated[str, typer.Option(help="The reason, for the ledger.")],
    as_json: JsonFlag = False,
) -> None:
    """Unpublish a domain's scores of a date; the rows are kept, so `mmlora restore` undoes it.

    Example: mmlora unpublish --domain farmer --date 2000-12-31 --reason "prices of the day before"
    """
    from mmlora.pipeline.unpublish import unpublish as run

    result = run(domain, parse_date(date), reason=reason)
    _print(result, f"{result.load_id} is unpublished: {domain} has no published scores for {date}", as_json)


def restore(
    load: LoadId,
    reason: Annotated[str, typer.Option(help="The reason, for the ledger.")] = "restored by hand",
    as_json: JsonFlag = False,
) -> None:
    """Publish a load again that was published before.

    Example: mmlora restore 2000-12-31-1-3fa9c1d2e4b5 --reason "the rerun was worse"
    """
    from mmlora.pipeline.unpublish import restore as run

    result = run(load, reason=reason)
    _print(result, f"readers of {result.domain_id} see {load} for {result.score_date}", as_json)


def _print(result: LoadStatus, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(f"{sentence}; the newest published date is {result.latest or 'none'}")
