"""``mmlora explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, format_value, print_json, print_table

if TYPE_CHECKING:
    from mmlora.pipeline.explain import Explanation

_SHOWN_PARTS = 20
_LONGEST = 60


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(explain)


def explain(
    domain: Annotated[str, typer.Option(help="The domain.")],
    user: Annotated[str, typer.Option(help="The user.")],
    item: Annotated[str, typer.Option(help="The item; it need not be in the user's list.")],
    date: Annotated[
        str | None, typer.Option(help="The score date; default: the newest published one.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how a pair's score came about: parts of the logit, experts, features, model and checks.

    Example: mmlora explain --domain farmer --user 12 --item 260
    """
    from mmlora.pipeline.explain import explain as run

    result = run(domain, user, item, on=parse_date(date) if date else None)
    if as_json:
        print_json(result.to_json())
        return
    _print(result)


def _print(result: Explanation) -> None:
    place = "not in the user's list"
    if result.position is not None:
        place = f"published as {format_value(result.published_score)} at position {result.position}"
    typer.echo(
        f"user {result.user_id}, item {result.item_id} in {result.domain_id} on {result.score_date}: "
        f"score {format_value(result.score)}, {place}"
    )
    typer.echo(
        f"load {result.load_id}, scored by mmlora {result.code_version or 'of an unknown version'}; model "
        f"{result.model_version} as of {result.model_as_of}, trained by mmlora {result.model_code_version}"
    )
    typer.echo(
        f"bundle {result.bundle_hash}, training data {result.data_fingerprint}, "
        f"features {result.contract_hash}"
    )
    shift = f"{'-' if result.shift < 0 else '+'} {abs(result.shift):.4f}"
    typer.echo(
        f"score = sigmoid({result.scale:.4f} * logit {shift}); the logit is {result.logit:.4f}, "
        "the sum of these parts"
    )
    rows: list[list[object]] = [[part.kind, part.name, part.value] for part in result.parts[:_SHOWN_PARTS]]
    if rest := result.parts[_SHOWN_PARTS:]:
        rows.append(["", f"{len(rest):,} smaller parts", sum(part.value for part in rest)])
    print_table("parts of the logit", ("kind", "part", "value"), rows)
    if result.gate:
        print_table("gate", ("expert", "weight"), [[name, weight] for name, weight in result.gate.items()])
    head = ("feature", "value", "holds since", "known since")
    features = [
        [name, _short(value), *_times(result, name)] for name, value in sorted(result.features.items())
    ]
    print_table(f"features as of {result.score_date} 00:00 UTC", head, features)
    failed = [check for check in result.checks if not check.passed]
    typer.echo(f"checks of the load: {len(result.checks) - len(failed)} of {len(result.checks)} passed")
    for check in failed:
        typer.echo(f"{check.name}: {check.detail}")


def _times(result: Explanation, feature: str) -> tuple[str, str]:
    """Return since when a feature's value holds and is known; ids of the pair are given."""
    source = next((each for each in result.sources if feature.startswith(f"{each.view}__")), None)
    if source is None:
        return "", ""
    if source.event_timestamp is None or source.known_at is None:
        return "no row yet", ""
    return f"{source.event_timestamp:%Y-%m-%d %H:%M}", f"{source.known_at:%Y-%m-%d %H:%M}"


def _short(value: object) -> str:
    text = format_value(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
