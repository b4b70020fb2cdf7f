"""A judgement as MLflow keeps it: a number a contender, domain and figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlora.registry.tracking import Point

_POOLED = ("wauc", "auc", "logloss", "calibration")
_OF_A_DOMAIN = ("auc", "logloss", "calibration")
_LISTS = ("most_common_first", "coverage")


def judgement_points(judgement: Mapping[str, Any]) -> Iterator[Point]:
    """Yield the figures of a judgement.

    They are called ``judge/CONTENDER/[DOMAIN/]FIGURE``; ``judge/CONTENDER/difference/...`` is the model's
    less the contender's, with ``low`` and ``high``; ``judge/CONTENDER/shown/...`` is of the held-out day, and
    ``judge/CONTENDER/lists/DOMAIN/...`` of the sample's lists.
    """
    for row in judgement["contenders"]:
        phase = f"judge/{row['name']}"
        yield from _points(phase, row, _POOLED)
        for domain, own in row.get("by_domain", {}).items():
            yield from _points(phase, own, _OF_A_DOMAIN, domain)
        for figure in ("wauc", "auc", "logloss"):
            if "difference" in row:
                interval = row["difference"][figure]
                yield from _points(f"{phase}/difference/{figure}", interval, ("value", "low", "high"))
    for row in judgement["shown"]["contenders"]:
        yield from _points(f"judge/{row['name']}/shown", row, tuple(row.keys() - {"name"}))
    for row in judgement["lists"]:
        yield from _points(f"judge/{row['name']}/lists", row, _LISTS, row["domain"])


def _points(
    phase: str, row: Mapping[str, Any], names: tuple[str, ...], domain: str | None = None
) -> Iterator[Point]:
    from mmlora.registry.tracking import Point

    for name in names:
        if row.get(name) is not None:
            yield Point(phase, name, 0, row[name], domain)
