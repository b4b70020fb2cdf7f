"""The forward passes that the scoring benchmark compares, over the same made-up pairs of one domain.

``loop``, ``fused`` and ``folded`` score whole rows; ``side plans`` and ``bfloat16`` score rows of two sides,
which are computed before: a night has thousands of pairs a user and item.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmlora.batch import Batch
from mmlora.models.builder import build_model
from mmlora.models.ctr import CTRModel
from mmlora.models.folding import fold
from mmlora.models.lora import MoELoRALinear
from mmlora.models.sharing import shallow_copy
from mmlora.models.side_plans.pair_model import PairModel
from mmlora.models.side_plans.pairs import GridPairs
from mmlora.models.side_plans.parts import Part
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.scoring.work import CPU_BLOCK_ROWS

NAMES = ("loop", "fused", "folded", "side plans", "bfloat16")
# Fields and embedding width: 24 and 384 inputs of the tower of most backbones.
INPUTS = {24: (3, 8), 384: (24, 16)}
HIDDEN, RANK, DOMAIN = (256, 128, 64), 8, 0
_ROWS = CPU_BLOCK_ROWS["float32"]
_VALUES, _USERS, _ITEMS = 5000, 64, 4096


@dataclass(frozen=True)
class Forward:
    """Scores one block; a call is a block."""

    block: Callable[[], Tensor]
    rows: int


class _LoopOverExperts(nn.Module):
    """``x W + b + (alpha / R) sum_e g_e (x A_e B_e + c_e)`` as it is written."""

    def __init__(self, layer: MoELoRALinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, gate_weights: Tensor | None) -> Tensor:
        layer = self.layer
        out = nn.functional.linear(x, layer.weight, layer.bias)
        if gate_weights is None:
            return out
        for expert in range(layer.num_experts):
            own = x @ layer.lora_a[expert] @ layer.lora_b[expert] + layer.lora_c[expert]
            out = out + layer.scale * gate_weights[:, expert : expert + 1] * own
        return out


def make_model(backbone: str, width: int, experts: int) -> CTRModel:
    """Return a model with random experts; without any when ``experts`` is 0."""
    torch.manual_seed(0)
    fields, dim = INPUTS[width]
    spec = ModelSpec(
        backbone,  # type: ignore[arg-type]
        "moe_mlora" if experts else "none",
        tuple(FieldShape(f"field{number}", "categorical", _VALUES) for number in range(fields)),
        max(1, experts),
        crosses=False,
        embedding_dim=dim,
        hidden_units=HIDDEN,
        rank=RANK,
    )
    model = build_model(spec, expert_domains=range(experts))
    with torch.no_grad():
        for value in model.expert_parameters():
            value.normal_(std=0.02)
    return model.eval()


def forwards(model: CTRModel, width: int, names: tuple[str, ...] = NAMES) -> dict[str, Forward]:
    """Return the ways to score with a model."""
    makers = {"loop": _loop, "fused": lambda model: model, "folded": lambda model: fold(model, DOMAIN)}
    found = {name: _of_rows(makers[name](model), width) for name in names if name in makers}
    for name, precision in (("side plans", "float32"), ("bfloat16", "bfloat16")):
        if name in names:
            found[name] = _of_sides(model, width, precision)
    return found


def _loop(model: CTRModel) -> CTRModel:
    looped = shallow_copy(model)
    looped.tower.layers = nn.ModuleList(_LoopOverExperts(layer) for layer in looped.tower.layers)  # type: ignore[arg-type]
    return looped


def _draw(rows: int, fields: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        categorical=torch.randint(2, _VALUES, (rows, fields), generator=generator),
        dense=torch.zeros(rows, 0),
        domain=torch.full((rows,), DOMAIN),
    )


def _of_rows(model: CTRModel, width: int) -> Forward:
    batch = _draw(_ROWS, INPUTS[width][0])
    return Forward(lambda: model(batch), _ROWS)


def _of_sides(model: CTRModel, width: int, precision: str) -> Forward:
    fields = INPUTS[width][0]
    users = fields - fields // 2
    sides = Part(tuple(range(users)), ()), Part(tuple(range(users, fields)), ())
    pair_model = PairModel(model, domain=DOMAIN, user=sides[0], item=sides[1], precision=precision)  # type: ignore[arg-type]
    with torch.inference_mode():
        user = pair_model.side(_draw(_USERS, users), "user")
        item = pair_model.side(_draw(_ITEMS, fields - users), "item")
    rows = CPU_BLOCK_ROWS[precision]  # type: ignore[index]
    # It begins in the middle of a user's items, as most blocks do.
    pairs = GridPairs(_ITEMS // 2 + 7, rows, rows, _ITEMS)
    return Forward(lambda: pair_model.logits(pairs, user, item), rows)


def flops(forward: Forward) -> float:
    """Return the operations of a pair's matrix products."""
    # Which torch leaves out: of the shapes of three matrices.
    in_place = {torch.ops.aten.addmm_: lambda _, left, right, **__: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter, torch.inference_mode():
        forward.block()
    return counter.get_total_flops() / forward.rows


def product(precision: str) -> Forward:
    """Return a product of matrices that fit a core's cache, whose rate is the machine's limit."""
    dtype = getattr(torch, precision)
    left, right = torch.randn(1024, 256).to(dtype), torch.randn(256, 256).to(dtype)
    return Forward(lambda: left @ right, 1024)


PRODUCT_FLOPS = 2 * 256 * 256
"""Of a row of :func:`product`."""
