"""What synthetic data sets have in common: parameters with ranges, and clicks with a known probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import UsageError


def check_dials(
    what: str, dials: Any, faults: Sequence[str] = (), **ranges: tuple[float, float | None]
) -> None:
    """Refuse values out of range.

    Args:
        what: the data set, for the message.
        dials: an object with an attribute for each range.
        faults: other faults.
        **ranges: minimum and maximum of each value; None for no maximum.

    Raises:
        UsageError: a value is out of range; lists every fault.
    """
    found = []
    for name, (least, most) in ranges.items():
        value = getattr(dials, name)
        if not least <= value <= (math.inf if most is None else most):  # NaN is not in any range
            valid = f"give {least} or more" if most is None else f"valid are {least} to {most}"
            found.append(f"{name} {value}: {valid}")
    if found := [*found, *faults]:
        raise UsageError(f"{what}: " + "; ".join(found))


def sigmoid(logit: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the probability of a logit, in float64."""
    return np.asarray(1 / (1 + np.exp(-logit.astype(np.float64))))
