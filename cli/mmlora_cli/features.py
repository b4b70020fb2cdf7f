"""``mmlora features``: compute features, and list what profile columns become."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlora_cli.options import parse_date
from mmlora_cli.output import JsonFlag, print_json, print_table, progress_bar

app = typer.Typer(help="Compute features from the offline store, and list them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Compute features from the offline store."""


@app.command()
def build(
    through: Annotated[
        str, typer.Option(help="Compute rows with timestamps up to this day, 00:00 UTC, YYYY-MM-DD.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Compute the activity views up to a day (incrementally), and apply the feature definitions.

    Example: mmlora features build --through 2000-12-31
    """
    from mmlora.pipeline.features import build_features

    with progress_bar(quiet=as_json) as progress:
        report = build_features(parse_date(through), progress=progress)
    if as_json:
        print_json(report.to_json())
        return
    print_table("activity rows written", ("view", "rows"), list(report.rows.items()))


@app.command("list")
def list_columns(as_json: JsonFlag = False) -> None:
    """Print the kind of feature that each column of the users' and items' profiles becomes, and why.

    To override it, use `[features.columns]` in mmlora.toml, e.g. "items.price" = "dense".

    Example: mmlora features list
    """
    from mmlora.pipeline.features import list_features

    features = list_features()
    if as_json:
        print_json(features.to_json())
        return
    names = ("column", "became", "values", "missing", "why")
    rows = [tuple(getattr(column, name) for name in names) for column in features.columns]
    print_table("columns of the profiles", names, rows)
    views = [(view.view, ", ".join(view.features) or None, view.why) for view in features.views]
    print_table("views computed from profiles and interactions", ("view", "features", "what"), views)
