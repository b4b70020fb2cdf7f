"""Compare a model with its best baseline: a verdict, and a sentence."""

from __future__ import annotations

from mmlora.judgement import ContenderRow, Standing
from mmlora.metrics import Interval


def verdict_of(difference: Interval | None) -> Standing:
    """Return whether an interval of a difference is above 0, below 0 or neither."""
    if difference is None or difference.low is None or difference.high is None:
        return "unknown"
    if difference.low > 0:
        return "above"
    return "below" if difference.high < 0 else "level"


def sentence(model: ContenderRow, best: ContenderRow | None, rows: int) -> str:
    """Return a sentence that compares a model with its best baseline.

    Args:
        model: the model's row of the comparison.
        best: the row of its best baseline, with a wauc and a difference; None without one.
        rows: number of test rows compared.
    """
    if best is None or best.difference is None:
        return "the model was not compared: no domain's test rows have both labels"
    name, difference = best.name, best.difference.wauc
    verdict = verdict_of(difference)
    how = {
        "above": f"the model is better than its best baseline, {name}",
        "below": f"the model is below its best baseline, {name}, which would score better",
        "level": f"the model is as good as its best baseline, {name}, within noise",
        "unknown": f"the model has no interval of its difference to its best baseline, {name}",
    }[verdict]
    if verdict == "level" and difference.value is not None and difference.value < 0:
        how = f"the model is slightly below its best baseline, {name}, but within noise"
    low, high = (f"{bound:+.4f}" if bound is not None else "-" for bound in (difference.low, difference.high))
    return (
        f"{how}: wauc {model.wauc:.4f} against {best.wauc:.4f} on the same {rows:,} test rows "
        f"(difference {difference.value:+.4f}, 95% interval {low} to {high})"
    )
