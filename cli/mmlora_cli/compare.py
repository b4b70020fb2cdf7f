"""``mmlora compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora.errors import UsageError
from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, format_value, print_json, print_table
from mmlora_cli.score import print_differences

if TYPE_CHECKING:
    from mmlora.pipeline.differences import LoadDifference


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(compare)


def compare(
    domain: Annotated[str | None, typer.Option(help="The domain, unless a load is given.")] = None,
    date: Annotated[str | None, typer.Option(help="A night; default: the newest published one.")] = None,
    against: Annotated[
        str | None, typer.Option(help="The published night to compare with; default: the previous one.")
    ] = None,
    load: Annotated[
        str | None, typer.Option(help="A staged, earlier or shadow load, instead of a published night.")
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="With --date: each domain's newest shadow load, and what readers see."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare the scores of two nights, of a load and what readers see, or of a shadow and what readers see.

    Once a night's interactions are imported, it also shows how well both had scored them.

    Example: mmlora compare --domain farmer --date 2000-12-31

    Example: mmlora compare --shadow --date 2000-12-31
    """
    from mmlora.pipeline.compare import compare as run
    from mmlora.pipeline.compare import compare_shadows

    nights = {name: parse_date(text) if text else None for name, text in (("on", date), ("against", against))}
    if not shadow:
        result = run(domain, load_id=load, **nights)
        if as_json:
            print_json(result.to_json())
        else:
            _print([result], f"changes by {result.after.load_id} of {result.after.score_date}")
        return
    if (on := nights["on"]) is None or against or load:
        raise UsageError("--shadow compares the shadow loads of a date: give --date, and --domain for one")
    results = compare_shadows(on, domain=domain)
    if as_json:
        print_json([each.to_json() for each in results])
    else:
        models = ", ".join(dict.fromkeys(each.after.model_version for each in results))
        _print(results, f"the shadow of {models} on {on}, and what readers see")


def _print(results: list[LoadDifference] | tuple[LoadDifference, ...], title: str) -> None:
    print_differences(title, [(each.domain_id, each.before, each.rows) for each in results])
    movers = [
        [each.domain_id, str(mover.item_id), mover.lists_before, mover.lists_after]
        for each in results
        for mover in each.movers
    ]
    if movers:
        columns = ("domain", "item", "lists before", "lists after")
        print_table("items that entered or left most users' first 10", columns, movers)
    labelled = [(each.domain_id, each.labels) for each in results if each.labels is not None]
    if labelled:
        names = (
            *("domain", "impressions", "clicks", "in first 10 before", "after", "scored by both"),
            *("auc before", "auc after", "gain", "95%"),
        )
        rows = [
            [
                *(name, of.impressions, of.clicks, of.clicks_in_top_10_before, of.clicks_in_top_10_after),
                *(of.scored, of.auc_before, of.auc_after, of.auc_gain),
                None
                if of.auc_gain_low is None
                else f"{format_value(of.auc_gain_low)} to {format_value(of.auc_gain_high)}",
            ]
            for name, of in labelled
        ]
        print_table("what users then clicked", names, rows)
