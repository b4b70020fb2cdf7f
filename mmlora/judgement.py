"""The judgement of a model: how it stands beside what a user would pick instead, as records.

:mod:`mmlora.judging` makes it, the registry keeps it in the bundle's manifest, promotion and nights obey its
verdict, and the command line prints its tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

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
    """Intervals of the model's figures less a contender's, on the same rows.

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
        seconds: taken to train it and to score the rows.
        decides: whether the model must not be below it.
        wauc: mean of the domains' AUCs weighted by rows; None when no domain has one.
        auc: over all rows.
        logloss: over all rows.
        calibration: sum of scores over clicks.
        by_domain: its figures in each domain; None for a contender that wasn't compared.
        difference: the model less this contender; None for the model itself.
    """

    name: str
    note: str
    seconds: float
    decides: bool
    wauc: float | None = None
    auc: float | None = None
    logloss: float | None = None
    calibration: float | None = None
    by_domain: Mapping[str, DomainFigures] | None = None
    difference: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, without figures or a difference that the contender doesn't have."""
        row = super().to_json()
        if self.difference is None:
            del row["difference"]
        if self.by_domain is None:
            for name in ("wauc", "auc", "logloss", "calibration", "by_domain"):
                del row[name]
        return row


@dataclass(frozen=True)
class ShownRow(Record):
    """What was shown on a held-out day, as a contender would have ranked it.

    Attributes:
        name: the contender.
        ctr_at_1: clicks over items in the first place of all lists; None without lists.
        ctr_at_5: the same for the first five places.
        ndcg_at_5: mean over the lists with a click; None without any.
        calibration: sum of scores over clicks of all rows; None without clicks.
    """

    name: str
    ctr_at_1: float | None
    ctr_at_5: float | None
    ndcg_at_5: float | None
    calibration: float | None


@dataclass(frozen=True)
class Shown(Record):
    """What was shown on a held-out day.

    Attributes:
        day: the day; None where the rows are all test rows.
        rows: rows shown.
        lists: lists of two items or more.
        contenders: one row for each contender that has scores.
    """

    day: date | None
    rows: int
    lists: int
    contenders: tuple[ShownRow, ...]


@dataclass(frozen=True)
class ListRow(Record):
    """How alike the lists are that a contender gives a sample of a domain's users.

    Attributes:
        domain: the domain.
        name: the contender.
        users: users with a list.
        items: candidate items.
        most_common_first: share of users whose first item is the most common one; None without users.
        coverage: share of the candidates that are in any list; None without candidates.
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
    """The test rows whose user, or item, has a certain number of training rows.

    Attributes:
        training_rows: that number: ``0``, ``1-3``, ``4-20`` or ``more``.
        rows: test rows.
        clicks: of these rows.
        by: figures by contender.
    """

    training_rows: str
    rows: int
    clicks: int
    by: Mapping[str, ColdFigures]


@dataclass(frozen=True)
class Coldness(Record):
    """Test rows by the training rows of their user, and of their item."""

    user: tuple[ColdBand, ...] = ()
    item: tuple[ColdBand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement(Record):
    """How a model stands beside its baselines.

    Attributes:
        model: the phase whose model was judged; None where nothing was compared.
        refit: whether the registered model is trained on all rows afterwards.
        trained_until: the last moment of the registered model's training rows, ISO 8601.
        verdict: the model beside its best baseline: ``above``, ``level`` or ``below``, or ``unknown``.
        sentence: the same in one plain sentence.
        best_baseline: its name; None when no baseline that decides has a wauc.
        test_rows: test rows of the split.
        rows: test rows that were compared; a sample where there are many.
        contenders: the model first.
        shown: what was shown on a held-out day.
        lists: one row for each domain and ranking.
        cold: the model and its best baseline by training rows.
    """

    model: str | None = None
    refit: bool = False
    trained_until: str | None = None
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
        """The model less its best baseline; None without one."""
        return next((row.difference for row in self.contenders if row.name == self.best_baseline), None)

    @property
    def compared(self) -> tuple[ContenderRow, ...]:
        """The contenders that have figures."""
        return tuple(row for row in self.contenders if row.by_domain is not None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, without the model's facts where nothing was compared."""
        raw = super().to_json()
        if self.model is None:
            del raw["model"], raw["refit"], raw["trained_until"]
        return raw


def below_baseline(judgement: Judgement | None) -> str | None:
    """Return the sentence of a judgement that finds a model below its best baseline; None for any other."""
    return judgement.sentence if judgement is not None and judgement.verdict == "below" else None
