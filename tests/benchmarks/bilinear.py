"""A bilinear form of given vectors, fitted by L-BFGS: ``sigmoid(x'M y + c)``, one M and c a group of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def bilinear_scores(
    user: npt.NDArray[np.float32],
    item: npt.NDArray[np.float32],
    group: npt.NDArray[np.int64],
    label: npt.NDArray[Any],
    test: npt.NDArray[np.bool_],
    *,
    penalty: float = 30.0,
) -> npt.NDArray[np.float64]:
    """Fit each group's form on the rows that are not ``test``, and score those that are.

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
