"""What each contender is measured by, and how figures become a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from quality_competitors import Rows, Scorer

from mmlora.data.shop_truth import ListFigures, ShopTruth, total
from mmlora.data.shop_world import MARKETS
from mmlora.metrics import domain_metrics

FIRST = 20
CANDIDATE_DAYS = 30
LEAST_ROWS = 1_000
USERS_AT_ONCE = 20
HEADERS = (
    *("contender", "seed", "wauc", "clicks of lists / best", "same first item", "sum of scores / clicks"),
    *("worst market", "sum of scores / true", "worst market, / true", "training s", "note"),
)


@dataclass(frozen=True)
class Figures:
    """A line of the table; None where a contender has no such figure.

    Attributes:
        contender: its name.
        seed: of the world, or what the rows are.
        wauc: of the next day's rows.
        of_best: true CTR of the first 20 items, as a share of the best possible.
        same_first: share of a market's users with its most common first item.
        per_click: sum of scores / clicks.
        worst: the furthest from 1 of ``per_click`` in domains with 1,000 rows.
        per_true: sum of scores / sum of the true probabilities, which has none of the clicks' noise.
        worst_true: the furthest from 1 of ``per_true`` in domains with 1,000 rows.
        seconds: of training.
        note: what else has to be said.
    """

    contender: str
    seed: int | str
    wauc: float | None
    of_best: float | None = None
    same_first: float | None = None
    per_click: float | None = None
    worst: float | None = None
    per_true: float | None = None
    worst_true: float | None = None
    seconds: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """Return the line's cells."""
        formats = {
            "wauc": "{:.4f}",
            **dict.fromkeys(("of_best", "per_click", "worst", "per_true", "worst_true"), "{:.3f}"),
            "same_first": "{:.0%}",
            "seconds": "{:.0f}",
        }
        values = {name: getattr(self, name) for name in formats}
        texts = {n: "" if v is None else formats[n].format(v) for n, v in values.items()}
        order = ("wauc", "of_best", "same_first", "per_click", "worst", "per_true", "worst_true", "seconds")
        return [self.contender, str(self.seed), *(texts[name] for name in order), self.note]


def judge_rows(label: Any, score: Any, domain: Any, true: Any = None) -> dict[str, float | None]:
    """Return the figures of rows: wauc, and how far sums are from clicks; ``[N]`` each."""
    domain = np.unique(domain, return_inverse=True)[1]
    large = [domain == d for d in np.flatnonzero(np.bincount(domain) >= LEAST_ROWS)]
    figures = {
        "wauc": domain_metrics(label, score, domain).wauc,
        "per_click": float(score.sum() / label.sum()),
        "worst": _furthest([score[rows].sum() / max(label[rows].sum(), 1) for rows in large]),
    }
    if true is not None:
        figures["per_true"] = float(score.sum() / true.sum())
        figures["worst_true"] = _furthest([score[rows].sum() / true[rows].sum() for rows in large])
    return figures


def _furthest(ratios: Sequence[float]) -> float | None:
    """Return the ratio that is the furthest from 1."""
    return max(ratios, key=lambda ratio: abs(np.log(ratio)), default=None)


def sampled_lists(truth: ShopTruth, score: Scorer, users: int, rng: np.random.Generator) -> ListFigures:
    """Judge lists of some of each market's users of the last 30 days; markets weigh what all of them do."""
    rows, days = truth.impressions, truth.dials.days
    recent = (rows.day < days) & (rows.day >= days - CANDIDATE_DAYS)
    found = []
    for market in np.unique(rows.market[recent]):
        active = np.unique(rows.customer[recent & (rows.market == market)])
        some = rng.choice(active, min(users, len(active)), replace=False)
        parts = np.array_split(some, -(-len(some) // USERS_AT_ONCE))
        lists = pa.concat_tables([_lists(truth, score, part, int(market)) for part in parts])
        found.append(replace(truth.judge_lists(lists, FIRST)[0], users=len(active)))
    return total(found)


def _lists(truth: ShopTruth, score: Scorer, users: npt.NDArray[np.int64], market: int) -> pa.Table:
    items, world = truth.on_sale, truth.world
    pairs = len(users) * len(items)
    rows = Rows(
        np.repeat(users, len(items)),
        np.tile(items, len(users)),
        np.full(pairs, market),
        np.full(pairs, truth.dials.days),
    )
    best = np.argsort(-score(rows).reshape(len(users), -1), axis=1, kind="stable")[:, :FIRST]
    return pa.table(
        {
            "domain_id": [MARKETS[market].name] * best.size,
            "user_id": np.repeat(world.customers.id[users], FIRST),
            "item_id": world.products.id[items[best.ravel()]],
            "position": np.tile(np.arange(1, FIRST + 1), len(users)),
        }
    )


def means(figures: Sequence[Figures]) -> list[Figures]:
    """Return each contender's mean over seeds; the worst market is the worst of all."""
    lines = []
    for contender in dict.fromkeys(line.contender for line in figures):
        own = [line for line in figures if line.contender == contender]
        if len(own) > 1:
            names = ("wauc", "of_best", "same_first", "per_click", "per_true", "seconds")
            averages = {name: _mean([getattr(line, name) for line in own]) for name in names}
            worst = {
                name: _furthest([getattr(line, name) for line in own if getattr(line, name) is not None])
                for name in ("worst", "worst_true")
            }
            lines.append(Figures(contender, "mean", **averages, **worst))
    return lines


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def markdown(figures: Sequence[Figures]) -> str:
    """Return a Markdown table."""
    rows = [HEADERS, ["---"] * len(HEADERS), *(line.cells() for line in figures)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
