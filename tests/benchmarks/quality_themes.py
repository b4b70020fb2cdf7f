"""The made-up themes: rows with given vectors, and bilinear forms of them for each theme or for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmlora.data.synthetic import Dials, make_synthetic

SMOOTHING = 20


@dataclass(frozen=True)
class ThemeRows:
    """Rows in the order of time; the last day is the one to predict.

    Attributes:
        table: the interactions.
        user: vectors of each row's user, ``[N, K]``.
        item: vectors of each row's item, ``[N, K]``.
        domain: ``[N]``.
        label: ``[N]``.
        probability: the truth, ``[N]``.
        late: whether a row is of the last day, ``[N]``.
    """

    table: pa.Table
    user: npt.NDArray[np.float32]
    item: npt.NDArray[np.float32]
    domain: npt.NDArray[np.int64]
    label: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]
    late: npt.NDArray[np.bool_]

    @classmethod
    def make(cls, dials: Dials) -> ThemeRows:
        data = make_synthetic(dials)
        table = data.interactions
        user, item = (
            np.stack(data.profiles[entity]["vector"].to_numpy())[table[f"{entity}_id"].to_numpy() - 1]
            for entity in ("user", "item")
        )
        domain = table["domain_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        day = table["event_timestamp"].to_numpy().astype("datetime64[D]")
        label, probability = table["label"].to_numpy(), data.truth["probability"].to_numpy()
        return cls(table, user, item, domain.astype(np.int64), label, probability, day == day.max())

    def item_ctr(self) -> npt.NDArray[np.float64]:
        """Return the smoothed CTR of each late row's item in its theme before."""
        early, items = ~self.late, self.table["item_id"].to_numpy()
        key = self.domain * (items.max() + 1) + items
        shown, clicks = (
            np.bincount(key[early], weights, key.max() + 1) for weights in (None, self.label[early])
        )
        base = np.bincount(self.domain[early], self.label[early]) / np.bincount(self.domain[early])
        key, base = key[self.late], base[self.domain[self.late]]
        return np.asarray((clicks[key] + SMOOTHING * base) / (shown[key] + SMOOTHING))

    def bilinear(self, *, by_theme: bool) -> npt.NDArray[np.float64]:
        """Return the late rows' scores by one form for each theme, or by one for all."""
        group = self.domain if by_theme else 0 * self.domain
        return bilinear_scores(self.user, self.item, group, self.label, self.late)


def bilinear_scores(
    user: npt.NDArray[np.float32],
    item: npt.NDArray[np.float32],
    group: npt.NDArray[np.int64],
    label: npt.NDArray[Any],
    test: npt.NDArray[np.bool_],
    *,
    penalty: float = 30.0,
) -> npt.NDArray[np.float64]:
    """Fit a form ``sigmoid(x'M y + c)`` for each group by L-BFGS, and score the ``test`` rows.

    Args:
        user: x of each row, ``[N, K]``.
        item: y of each row, ``[N, K]``.
        group: ``[N]``; the rows of a group share a form.
        label: ``[N]``.
        test: which rows to score instead of fitting, ``[N]``.
        penalty: of the sum of M's squares, beside the sum of the rows' log losses.

    Returns:
        Scores of the test rows in their order.
    """
    scores = np.zeros(len(label))
    for number in np.unique(group[test]):
        early, late = ((group == number) & rows for rows in (~test, test))
        scores[late] = _fit_and_score(user, item, label, early, late, penalty)
    return scores[test]


def _fit_and_score(user: Any, item: Any, label: Any, early: Any, late: Any, penalty: float) -> Any:
    import torch

    x, y, target = (torch.from_numpy(np.asarray(v[early], np.float32)) for v in (user, item, label))
    form = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    level = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([form, level], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logit = ((x @ form) * y).sum(1) + level
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
        total = losses + penalty / len(target) * form.square().sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logit = ((torch.from_numpy(user[late]) @ form) * torch.from_numpy(item[late])).sum(1) + level
    return torch.sigmoid(logit.double()).numpy()
