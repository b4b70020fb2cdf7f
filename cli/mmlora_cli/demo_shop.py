"""``make demo-shop``: the nightly job on a made-up shop, whose truth says what the lists are worth.

Twelve markets that differ in what they like; 60 days are imported, the day after is scored.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import typer

from mmlora_cli.demos import Demo, run_demo, show_scores, show_training
from mmlora_cli.output import note, print_table

NIGHT = date(2026, 3, 2)
FIRST = 20


def main(
    seed: Annotated[int, typer.Option(help="Of the shop.")] = 1,
    scale: Annotated[float, typer.Option(help="1: 400,000 impressions; 0.1: a tenth.")] = 1.0,
) -> None:
    """Import the shop, train as of the day after, score that day, and show what came of it."""
    run_demo(
        Demo(
            home="var-shop",
            as_of=NIGHT,
            night=NIGHT,
            load=lambda: _load(seed, scale),
            show=_show,
            next_steps=(
                ".venv/bin/mmlora read --domain nl --limit 10",
                ".venv/bin/mmlora backfill --domain nl --start 2026-02-27 --end 2026-03-01",
                "make airflow",
            ),
        )
    )


def _load(seed: int, scale: float) -> None:
    from mmlora.pipeline.data import import_shop

    note("A made-up shop of 12 markets; the day after and the true click probabilities are kept aside")
    report = import_shop(seed=seed, scale=scale)
    note(f"  {report['interactions']:,} interactions imported, {report['unchanged']:,} were there")


def _show(trained: dict[str, Any]) -> None:
    show_training(trained, NIGHT)
    show_scores("nl", NIGHT)
    _show_markets(trained["test"])
    _show_lists()


def _show_markets(test: list[dict[str, Any]]) -> None:
    """Print what the experts and the gate add to the backbone on each market's test rows, most first."""
    last = list(test[0])[-1]
    rows = [[row["domain"], row["rows"], row["backbone"], row[last], _lift(row, last)] for row in test]
    markets, total = rows[:-1], rows[-1]
    markets.sort(key=lambda row: -(row[-1] or 0))
    columns = ("market", "test rows", "backbone", f"with {last}", "lift")
    print_table("markets that differ: auc by the backbone alone and adapted", columns, [*markets, total])


def _lift(row: dict[str, Any], last: str) -> float | None:
    return None if row["backbone"] is None or row[last] is None else row[last] - row["backbone"]


def _show_lists() -> None:
    """Print what the published lists are worth by the truth, and how alike they are."""
    import pyarrow as pa

    from mmlora.data.shop_truth import ShopTruth
    from mmlora.pipeline.read import read_scores
    from mmlora.workspace import open_workspace

    workspace, lists = open_workspace(), []
    for domain in workspace.expected_domains():
        with read_scores(str(domain), on=NIGHT) as reader:
            lists.append(reader.read_all().select(["domain_id", "user_id", "item_id", "position"]))
    figures = ShopTruth.open(workspace.home / "shop").judge_lists(pa.concat_tables(lists), FIRST)
    columns = ("market", "users", "these", "popular", "best", "these / best", "same first item", "items")
    rows = [
        [f.market, f.users, f.true_ctr, f.popular_ctr, f.best_ctr, f.of_best, f.same_first, f.items]
        for f in figures
    ]
    print_table(f"true CTR of each user's first {FIRST} items, and how alike they are", columns, rows)
    typer.echo(
        "popular: the market's items of the highest smoothed CTR; best: each user's best by the truth; "
        "same first item: share of the users with the most common one"
    )


if __name__ == "__main__":
    typer.run(main)
