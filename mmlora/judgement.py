"""Records of a model's judgement, i.e. its comparison with the baselines that could be used instead.

:mod:`mmlora.judging` computes it, the registry stores it in the bundle's manifest, promotion and nights
follow its verdict, and the command line prints its tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from mmlora.metrics import Interval
from mmlora.records import Record

Standing = Literal["above", "level", "below", "unknown"]


@dataclass(frozen=True)
class DomainFigures(Record):
    """A contender's figures on a domain's test rows.

    Attributes:
        rows: test rows.
        clicks: of these rows.
        auc: None with one class of label.
        logloss: mean over the rows, in nats.
        calibration: sum of scores over clicks; None without clicks.
    """

    rows: int
    clicks: int
    auc: float | None
    logloss: float | None
    calibration: float | None


@dataclass(frozen=True)
class Difference(Record):
    """Intervals of the differences between the model's figures and a contender's, on the same rows.

    Attributes:
        wauc: of the domains' AUCs, weighted by rows.
        auc: over all rows.
        logloss: over all rows.
        by_domain: of each domain's AUC.
    """

    wauc: Interval
    auc: Interval
    logloss: Interval
    by_domain: Mapping[str, Interval]


@dataclass(frozen=True)
class ContenderRow(Record):
    """A contender on the test rows.

    Attributes:
        name: the contender.
        note: what it is, or why it wasn't compared.
        seconds: time to train it and to score the rows.
        wauc: mean of the domains' AUCs weighted by rows; None when no domain has one.
        auc: over all rows.
        logloss: over all rows.
        calibration: sum of scores over clicks.
        by_domain: its figures by domain; None for a contender that wasn't compared.
        difference: the model's figures minus this contender's; None for the model itself.
    """

    name: str
    note: str
    seconds: float
    wauc: float | None = None
    auc: float | None = None
    logloss: float | None = None
    calibration: float | None = None
    by_domain: Mapping[str, DomainFigures] | None = None
    difference: Difference | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping, without missing figures and differences."""
        row = super().to_json()
        if self.difference is None:
            del row["difference"]
        if self.by_domain is None:
            for name in ("wauc", "auc", "logloss", "calibration", "by_domain"):
                del row[name]
        return row


@dataclass(frozen=True)
class ShownRow(Record):
    """A contender's ranking of the items shown on a held-out day.

    Attributes:
        name: the contender.
        ctr_at_1: clicks over items at the first position of all lists; None without lists.
        ctr_at_5: the same for the first five positions.
        ndcg_at_5: mean over the lists with a click; None if there are none.
        calibration: sum of scores over clicks of all rows; None without clicks.
    """

    name: str
    ctr_at_1: float | None
    ctr_at_5: float | None
    ndcg_at_5: float | None
    calibration: float | None


@dataclass(frozen=True)
class Shown(Record):
    """The lists shown on a held-out day.

    Attributes:
        day: the day; None if the rows are all test rows.
        rows: number of rows shown.
        lists: number of lists with two items or more.
        contenders: one row per contender with scores.
    """

    day: date | None
    rows: int
    lists: int
    contenders: tuple[ShownRow, ...]


@dataclass(frozen=True)
class ListRow(Record):
    """The diversity of the lists that a contender gives to a sample of a domain's users.

    Attributes:
        domain: the domain.
        name: the contender.
        users: number of users with a list.
        items: number of candidate items.
        most_common_first: share of users with the most common first item; None without users.
        coverage: share of the candidates in any list; None without candidates.
    """

    domain: str
    name: str
    users: int
    items: int
    most_common_first: float | None
    coverage: float | None


@dataclass(frozen=True)
class ColdFigures(Record):
    """A contender's figures on a band of test rows; None where undefined."""

    auc: float | None
    logloss: float | None


@dataclass(frozen=True)
class ColdBand(Record):
    """The test rows whose user (or item) has a given number of training rows.

    Attributes:
        training_rows: the number of training rows: ``0``, ``1-3``, ``4-20`` or ``more``.
        rows: number of test rows.
        clicks: clicks in these rows.
        by: figures by contender.
    """

    training_rows: str
    rows: int
    clicks: int
    by: Mapping[str, ColdFigures]


@dataclass(frozen=True)
class Coldness(Record):
    """Figures by the number of training rows of the user, and of the item."""

    user: tuple[ColdBand, ...] = ()
    item: tuple[ColdBand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement(Record):
    """The comparison of a model with its baselines.

    Attributes:
        model: the phase whose model was judged; None if nothing was compared.
        refit: whether the registered model is trained on all rows afterwards.
        seen_until: by domain, the last moment (ISO 8601) of the training and validation rows.
        verdict: the model relative to its best baseline: ``above``, ``level``, ``below`` or ``unknown``.
        sentence: the verdict in a sentence.
        best_baseline: name of the best baseline; None when no baseline has a wauc.
        test_rows: number of test rows of the split.
        rows: number of test rows compared; a sample of large splits.
        contenders: the model first.
        shown: the rankings of a held-out day.
        lists: one row per domain and ranking.
        cold: the model and its best baseline by number of training rows.
    """

    model: str | None = None
    refit: bool = False
    seen_until: Mapping[str, str] = field(default_factory=dict)
    verdict: Standing
    sentence: str
    best_baseline: str | None
    test_rows: int
    rows: int
    contenders: tuple[ContenderRow, ...]
    shown: Shown
    lists: tuple[ListRow, ...]
    cold: Coldness

    @property
    def best(self) -> Difference | None:
        """The difference to the best baseline; None without one."""
        return next((row.difference for row in self.contenders if row.name == self.best_baseline), None)

    @property
    def compared(self) -> tuple[ContenderRow, ...]:
        """The contenders with figures."""
        return tuple(row for row in self.contenders if row.by_domain is not None)

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping, without facts of the model if nothing was compared."""
        raw = super().to_json()
        if self.model is None:
            del raw["model"], raw["refit"], raw["seen_until"]
        return raw


def below_baseline(judgement: Judgement | None) -> str | None:
    """Return the judgement's sentence if the model is below its best baseline, else None."""
    return judgement.sentence if judgement is not None and judgement.verdict == "below" else None
