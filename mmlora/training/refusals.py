"""Reject data and settings that cannot be trained, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmlora.errors import DataError, UsageError
from mmlora.models.builder import build_model
from mmlora.models.spec import ModelSpec
from mmlora.names import Adaptation, BackboneName
from mmlora.training.boosting import MISSING, installed
from mmlora.training.dataset import TrainingSet
from mmlora.training.splits import SPLIT_PARTS

ROWS_AN_EXPERT = 10
"""Training rows of each label that a domain needs per expert if it has several experts."""
_CHUNK_ROWS = 1_000_000


def refuse_impossible(spec: ModelSpec, data: TrainingSet, expert_domains: Sequence[int]) -> None:
    """Refuse a combination of model and data that can't be trained.

    Args:
        spec: the model's specification.
        data: the training set.
        expert_domains: the index of each domain that trains experts of its own.

    Raises:
        DataError: all training rows have the same label.
        UsageError: a domain has too few training rows of a label for ``spec.experts_per_domain`` experts, or
            the gate should keep more experts than there are, or trees can't be trained. Several experts
            need ``ROWS_AN_EXPERT`` each; a single one may be trained on any number of rows, and stays at zero
            if it doesn't help.
    """
    refuse_trees(spec.backbone, spec.adaptation)
    counts = label_counts(data)
    _refuse_one_class(counts.sum(0))
    if spec.experts_per_domain > 1:
        _refuse_hungry_experts(spec.experts_per_domain, counts, data, expert_domains)
    if spec.backbone == "gbdt":
        return
    with torch.device("meta"):  # shapes only: the builder's own refusals, and no memory
        build_model(
            spec, expert_domains=[domain for domain in expert_domains for _ in range(spec.experts_per_domain)]
        )


def refuse_trees(backbone: BackboneName, adaptation: Adaptation) -> None:
    """Refuse trees with experts, or without LightGBM to train them (``UsageError``)."""
    if backbone != "gbdt":
        return
    if adaptation != "none":
        raise UsageError(
            f"backbone gbdt is trees, which experts can't adapt, but the adaptation is {adaptation}: use "
            "adaptation none, or another backbone"
        )
    if not installed():
        raise UsageError(f"backbone gbdt: {MISSING}")


def label_counts(data: TrainingSet) -> npt.NDArray[np.int64]:
    """Return the number of training rows of each domain and label, ``[domains, 2]``."""
    counts = np.zeros(data.num_domains * 2, np.int64)
    for start in range(0, len(data), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        chosen = data.split[chunk] == SPLIT_PARTS.index("train")
        code = data.domain[chunk][chosen].astype(np.int64) * 2 + data.label[chunk][chosen]
        counts += np.bincount(code, minlength=len(counts))
    return counts.reshape(-1, 2)


def _refuse_one_class(counts: npt.NDArray[Any]) -> None:
    if counts.min() == 0:
        raise DataError(
            "training set",
            f"all {int(counts.sum()):,} training rows have label {int(counts.argmax())}, so there is nothing "
            "to learn: import interactions with the other label, or choose other days or another split",
        )


def _refuse_hungry_experts(
    experts: int, counts: npt.NDArray[Any], data: TrainingSet, expert_domains: Sequence[int]
) -> None:
    fed = {domain: int(counts[domain].min()) // ROWS_AN_EXPERT for domain in expert_domains}
    hungry = {data.domains[domain]: most for domain, most in fed.items() if most < experts}
    if hungry:
        named = ", ".join(f"{domain} {max(most, 1)}" for domain, most in list(hungry.items())[:8])
        raise UsageError(
            f"experts_per_domain is {experts}, and each expert needs {ROWS_AN_EXPERT} training rows of "
            f"each label in its domain; {len(hungry)} domains have too few for that ({named}): lower it "
            f"to {max(1, min(hungry.values()))}, or import more rows of these domains (mmlora train gives "
            "experts only to rich domains: see checks.rich_min_positives)"
        )
