"""A model compiled to score user-item pairs of one domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.errors import UsageError
from mmlora.models.backbones.autoint import AutoInt
from mmlora.models.backbones.dcn import DCN, MatrixCross, VectorCross
from mmlora.models.backbones.deepfm import DeepFM
from mmlora.models.backbones.fibinet import FiBiNET
from mmlora.models.backbones.nfm import NFM
from mmlora.models.backbones.pnn import PNN
from mmlora.models.backbones.wdl import WDL
from mmlora.models.backbones.xdeepfm import XDeepFM
from mmlora.models.ctr import CTRModel
from mmlora.models.folding import fold
from mmlora.models.side_plans.bilinear import FiBiNETSplit
from mmlora.models.side_plans.crosses import CrossPlan
from mmlora.models.side_plans.crossing import AutoIntSplit, MatrixDCNSplit, XDeepFMSplit
from mmlora.models.side_plans.direct import DirectPlan
from mmlora.models.side_plans.flat import DCNSplit, DeepFMSplit, NFMSplit, WDLSplit
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Layout, Part, Role, SidePlan, SideTensors
from mmlora.models.side_plans.products import PNNSplit
from mmlora.models.side_plans.split import Split, SplitPlan
from mmlora.names import Precision


class PairModel:
    """A folded model and its side plan: computes each side's tensors once, then logits of any pairs of them.

    Logits equal the model's own within 1e-5 in float32. With ``bfloat16`` a pair's products except the last,
    and what the sides contribute to them, are bfloat16; sides, terms and logits are float32. The model must
    not change while this is in use, because they share memory.

    Args:
        model: any model; it is not changed.
        domain: the domain's index; -1 for one absent at training.
        user: the inputs of the user, and those of the domain.
        item: the inputs of the item; together with the user's, they are all of the model's inputs.
        device: where to compute.
        precision: precision of what is computed per pair.
    """

    def __init__(
        self,
        model: CTRModel,
        *,
        domain: int,
        user: Part,
        item: Part,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        folded = fold(model, domain).to(device)
        layout = Layout(user, item, folded.embedding.embedding_dim)
        self._embeddings = {
            role: folded.embedding.part(layout.part(role).fields, layout.part(role).dense)
            for role in ("user", "item")
        }
        self._crosses: CrossPlan | None = None
        if folded.crosses is not None:
            self._crosses = CrossPlan(folded.crosses, folded.crosses.fields, domain=domain)
        self._device, self._casts = device, precision == "bfloat16"
        # If backbone and tower add nothing, the cross terms are the whole model.
        self._plan: SidePlan | None = None
        if folded.gate is not None or not folded.is_silent:
            self._plan = _plan(folded, layout, domain, torch.bfloat16 if self._casts else torch.float32)

    def side(self, batch: Batch, role: Role) -> SideTensors:
        """A side's own inputs, n rows -> its tensors, each ``[n, ...]``."""
        crosses = () if self._crosses is None else self._crosses.side(batch, role)
        rest = () if self._plan is None else self._plan.side(self._embeddings[role](batch), role)
        return *crosses, *rest

    def logits(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor:
        """B pairs of rows of the sides' tensors -> logits ``[B]`` float32."""
        if self._plan is None and self._crosses is not None:
            return self._crosses.logits(pairs, user, item)
        assert self._plan is not None
        # Weights are frozen, so nothing is cached between products, and threads share no state.
        with torch.autocast(self._device, torch.bfloat16, enabled=self._casts, cache_enabled=False):
            if self._crosses is None:
                return self._plan.logits(pairs, user, item)
            adaptation = self._crosses.adaptation(pairs, user, item)
            mine = self._crosses.tensors
            logits = self._plan.logits(pairs, user[mine:], item[mine:], adaptation)
            return logits.add_(self._crosses.logits(pairs, user, item))

    def cross_logits(self, user: SideTensors, item: SideTensors) -> Tensor:
        """All pairs of n users and m items -> their cross terms, ``[n, m]`` float32.

        They are cheap, because they are a dot product of one vector per side; the tower is left out, and so
        are experts whose weights depend on the sample.

        Raises:
            UsageError: the model has no cross terms.
        """
        if self._crosses is None:
            raise no_cross_terms()
        return self._crosses.all_logits(user, item)


def no_cross_terms() -> UsageError:
    """Return the error for a model that can't retrieve items by its cross terms."""
    return UsageError(
        "candidates.retrieval `two_tower` needs a model with cross terms, and this one has none: "
        "train a network with [training] crosses, or retrieve by `popularity`"
    )


def _plan(model: CTRModel, layout: Layout, domain: int, dtype: torch.dtype) -> SidePlan:
    split = _split(model.backbone, layout)
    # A gate that sees the sample weights the experts of every layer by the layer's whole input.
    if split is None or model.gate is not None:
        return DirectPlan(model, layout, domain=domain)
    return SplitPlan(split, model.tower, dtype=dtype)


def _split(backbone: nn.Module, layout: Layout) -> Split | None:
    """Return a backbone's split; None if there is none for it."""
    match backbone:
        case WDL():
            return WDLSplit(layout)
        case DeepFM():
            return DeepFMSplit(layout)
        case NFM():
            return NFMSplit(layout)
        case PNN():
            return PNNSplit(layout, backbone)
        case DCN(cross=VectorCross() as cross):
            return DCNSplit(layout, backbone, cross)
        case DCN(cross=MatrixCross() as cross):
            return MatrixDCNSplit(layout, backbone, cross)
        case XDeepFM() if len(backbone.cin.weights) == 2:
            return XDeepFMSplit(layout, backbone)
        case AutoInt():
            return AutoIntSplit(layout, backbone)
        case FiBiNET():
            return FiBiNETSplit(layout, backbone)
    return None
