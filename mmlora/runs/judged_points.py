"""Convert a judgement to MLflow metrics: one number per contender, domain and figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmlora.judgement import Judgement

if TYPE_CHECKING:
    from mmlora.registry.tracking import Point

_POOLED = ("wauc", "auc", "logloss", "calibration")
_BY_DOMAIN = ("auc", "logloss", "calibration")
_SHOWN = ("ctr_at_1", "ctr_at_5", "ndcg_at_5", "calibration")
_LISTS = ("most_common_first", "coverage")


def judgement_points(judgement: Judgement) -> Iterator[Point]:
    """Yield the figures of a judgement as MLflow points.

    Their names are ``judge/CONTENDER/[DOMAIN/]FIGURE``. ``judge/CONTENDER/difference/...`` is the model's
    figure minus the contender's, with ``low`` and ``high``; ``judge/CONTENDER/shown/...`` is of the held-out
    day, and ``judge/CONTENDER/lists/DOMAIN/...`` of the sampled lists.
    """
    for row in judgement.contenders:
        phase = f"judge/{row.name}"
        yield from _points(phase, row, _POOLED)
        for domain, figures in (row.by_domain or {}).items():
            yield from _points(phase, figures, _BY_DOMAIN, domain)
        for figure in ("wauc", "auc", "logloss") if row.difference else ():
            interval = getattr(row.difference, figure)
            yield from _points(f"{phase}/difference/{figure}", interval, ("value", "low", "high"))
    for shown in judgement.shown.contenders:
        yield from _points(f"judge/{shown.name}/shown", shown, _SHOWN)
    for lists in judgement.lists:
        yield from _points(f"judge/{lists.name}/lists", lists, _LISTS, lists.domain)


def _points(phase: str, row: object, names: tuple[str, ...], domain: str | None = None) -> Iterator[Point]:
    from mmlora.registry.tracking import Point

    for name in names:
        if (value := getattr(row, name)) is not None:
            yield Point(phase, name, 0, value, domain)
