"""``make demo-shop``: the nightly job on a synthetic shop, whose true probabilities judge the lists.

The shop has twelve markets with different tastes; 60 days are imported, and the day after is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from mmlora_cli.demos import Demo, run_demo, show_scores, show_training
from mmlora_cli.output import note, print_table

if TYPE_CHECKING:
    from mmlora.pipeline.training_summary import TestRow, TrainingSummary

NIGHT = date(2026, 3, 2)
FIRST = 20


def main(
    seed: Annotated[int, typer.Option(help="Seed of the shop.")] = 1,
    scale: Annotated[float, typer.Option(help="1: 400,000 impressions; 0.1: a tenth.")] = 1.0,
) -> None:
    """Import the shop, train as of the day after, score that day, and show the results."""
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

    note("A synthetic shop of 12 markets; the day after and the true click probabilities are not imported")
    report = import_shop(seed=seed, scale=scale)
    note(f"  {report.interactions:,} interactions imported, {report.unchanged:,} already stored")


def _show(trained: TrainingSummary) -> None:
    show_training(trained, NIGHT)
    show_scores("nl", NIGHT)
    _show_markets(trained.test)
    _show_lists()


def _show_markets(test: Sequence[TestRow]) -> None:
    """Print the lift of experts and gate over the backbone on each market's test rows, largest first."""
    last = list(test[0].auc)[-1]
    *own, total = test
    by_lift = sorted(own, key=lambda row: -(_lift(row, last) or 0))
    rows = [
        [row.domain, row.rows, row.auc["backbone"], row.auc[last], _lift(row, last)]
        for row in (*by_lift, total)
    ]
    columns = ("market", "test rows", "backbone", f"with {last}", "lift")
    print_table("auc by market: the backbone alone, and adapted to the market", columns, rows)


def _lift(row: TestRow, last: str) -> float | None:
    before, after = row.auc["backbone"], row.auc[last]
    return None if before is None or after is None else after - before


def _show_lists() -> None:
    """Print the true CTR of the published lists, and how similar they are."""
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
    print_table(f"true CTR of each user's first {FIRST} items, and how similar the lists are", columns, rows)
    typer.echo(
        "popular: the market's items with the highest smoothed CTR; best: each user's items with the highest "
        "true CTR; same first item: share of users with the most common first item"
    )


if __name__ == "__main__":
    typer.run(main)
