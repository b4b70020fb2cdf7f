"""A model with a mixture of experts of their own for some domains, for rows of any domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.models.ctr import CTRModel


class ModelByDomain(nn.Module):
    """Scores each row by its domain's mixture, or by the whole model if the domain has none.

    Args:
        whole: the whole model.
        mixtures: the models of domains with a mixture, by domain index.
    """

    def __init__(self, whole: CTRModel, mixtures: Mapping[int, CTRModel]) -> None:
        super().__init__()
        self.whole = whole
        self.mixtures = nn.ModuleDict({str(domain): model for domain, model in mixtures.items()})

    def of(self, domain: int) -> CTRModel:
        """Return the model of one domain's rows."""
        return cast(CTRModel, self.mixtures[str(domain)]) if str(domain) in self.mixtures else self.whole

    def forward(self, batch: Batch) -> Tensor:
        """B rows of any domains -> logits ``[B]``."""
        logits: Tensor = self.whole(batch)
        for domain, model in self.mixtures.items():
            own = (batch.domain == int(domain)).nonzero()[:, 0]
            if len(own):
                logits[own] = model(batch.take(own))
        return logits
