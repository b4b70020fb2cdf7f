"""How a model stands to its best baseline: a word, and one plain sentence. Light, for every verb reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Standing = Literal["above", "level", "below", "unknown"]


def verdict_of(difference: Mapping[str, Any] | None) -> Standing:
    """Return what an interval of a difference says: beyond noise above or below 0, or neither."""
    if difference is None or difference["low"] is None:
        return "unknown"
    if difference["low"] > 0:
        return "above"
    return "below" if difference["high"] < 0 else "level"


def sentence(model: Mapping[str, Any], best: Mapping[str, Any] | None, rows: int) -> str:
    """Say in one plain sentence how a model stands to its best baseline.

    Args:
        model: the model's row of the comparison.
        best: the baseline's; None without one that has a wauc.
        rows: test rows that were compared.
    """
    if best is None:
        return "the model was not compared: no domain's test rows have both labels"
    name, difference = best["name"], best["difference"]["wauc"]
    how = {
        "above": f"the model is better than its best baseline, {name}",
        "below": f"the model is below its best baseline, {name}, which would score better",
        "level": f"the model is as good as its best baseline, {name}, within noise",
        "unknown": f"the model has no interval of its difference to its best baseline, {name}",
    }[verdict_of(difference)]
    if verdict_of(difference) == "level" and difference["value"] < 0:
        how = f"the model is slightly below its best baseline, {name}, but within noise"
    low, high = (
        f"{difference[bound]:+.4f}" if difference[bound] is not None else "-" for bound in ("low", "high")
    )
    return (
        f"{how}: wauc {model['wauc']:.4f} against {best['wauc']:.4f} on the same {rows:,} test rows "
        f"(difference {difference['value']:+.4f}, 95% interval {low} to {high})"
    )


def below_baseline(judgement: Mapping[str, Any] | None) -> str | None:
    """Return the sentence of a judgement that finds a model below its best baseline; None for any other."""
    if judgement is None or judgement["verdict"] != "below":
        return None
    return str(judgement["sentence"])
