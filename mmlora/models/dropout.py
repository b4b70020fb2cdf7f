"""ReLU and dropout in one step, because separate dropout would cost half as much as a layer on CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_LEVELS = 1 << 16


class _Masks(threading.local):
    """Each thread's random bits for masks; None means seeded anew from torch's generator."""

    bits: np.random.SFC64 | None = None


_masks = _Masks()


@contextmanager
def masks_from(seed: int) -> Iterator[None]:
    """Make ``seed`` alone decide what this thread drops, whatever other threads do meanwhile (on CPU)."""
    before, _masks.bits = _masks.bits, np.random.SFC64(seed)
    try:
        yield
    finally:
        _masks.bits = before


def relu_dropout(x: Tensor, share: float) -> Tensor:
    """ReLU, then zero a share of the values and scale the rest by 1 / (1 - share), as training does.

    torch draws one double per value on CPU, which is slower than the layer itself; here 16 random bits decide
    each value, drawn by numpy from a seed of torch's generator (so ``torch.manual_seed`` still decides) or of
    :func:`masks_from`. The output is 0 wherever no gradient passes, so no mask is stored.

    Args:
        x: a layer's output, any shape; on CPU it is overwritten.
        share: the share to drop, in [0, 1), rounded to the nearest 1 / 65536.
    """
    dropped = round(share * _LEVELS)
    if dropped == 0:
        return torch.relu(x)
    if x.device.type != "cpu":
        return F.dropout(torch.relu(x), share)
    return cast(Tensor, _ReLUDropout.apply(x, dropped))  # type: ignore[no-untyped-call]


class _ReLUDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        # int16, because torch can't compare unsigned integers: the threshold is shifted accordingly. The
        # comparison writes numbers, because converting booleans to numbers takes longer than all the rest.
        kept = torch.ge(_random_int16(x), dropped - _LEVELS // 2, out=torch.empty_like(x))
        ctx.scale = _LEVELS / (_LEVELS - dropped)
        ctx.mark_dirty(x.clamp_min_(0.0).mul_(kept).mul_(ctx.scale))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, out, 0).mul_(ctx.scale), None


def _random_int16(like: Tensor) -> Tensor:
    """Draw random int16 values in the shape of ``like``."""
    bits = _masks.bits or np.random.SFC64(int(torch.randint(1 << 62, ())))
    words = cast(Any, bits.random_raw(-(-like.numel() // 4))).view(np.int16)
    return torch.from_numpy(words)[: like.numel()].view(like.shape)
