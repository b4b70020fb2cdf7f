"""``mmlora importance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.output import JsonFlag, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from mmlora.metrics.bootstrap import Interval


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(importance)


def importance(
    domain: Annotated[str | None, typer.Option(help="Rows of this domain only; all when left out.")] = None,
    model: Annotated[str | None, typer.Option(help="The model version; the champion when left out.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="The most held-out rows to use.")] = 10_000,
    permutations: Annotated[int, typer.Option(min=1, help="Permutations of each feature.")] = 3,
    as_json: JsonFlag = False,
) -> None:
    """Show how much of a model's AUC on held-out rows depends on each feature, by permutation.

    A feature's values are exchanged between the rows of a domain; what is lost is its importance.

    Example: mmlora importance --domain farmer
    """
    from mmlora.pipeline.importance import importance as run

    with progress_bar(quiet=as_json) as progress:
        result = run(
            domain=domain, model_version=model, rows=rows, permutations=permutations, progress=progress
        )
    if as_json:
        print_json(result.to_json())
        return
    typer.echo(f"model {result.model_version} on {result.rows:,} {result.source}; {result.clicks:,} clicks")
    table = []
    for each in result.features:
        most = max(each.by_domain.items(), key=lambda pair: pair[1].value or 0.0, default=None)
        where = () if domain or most is None else (most[0], most[1].value)
        table.append([each.feature, each.wauc.value, _interval(each.wauc), *where])
    head = ("feature", "loss of auc" if domain else "loss of wauc", "95%")
    print_table("features by importance", (*head, *(() if domain else ("most in", "loss of auc"))), table)


def _interval(interval: Interval) -> str | None:
    if interval.low is None or interval.high is None:
        return None
    return f"{interval.low:.4f} to {interval.high:.4f}"
