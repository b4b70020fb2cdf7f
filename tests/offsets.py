"""The same values elsewhere in memory: operands that begin at any element of a larger buffer.

A product's last bits may depend on where its operands begin. Whoever asserts equal bits asserts them at all
of these, so that they hold by the library's promise and not by where an allocator happened to put things.
"""

from __future__ import annotations

import copy
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from mmlora.batch import Batch

OFFSETS = range(16)
"""In elements, from an address that is a multiple of 64 bytes: every alignment of float32 to 64 bytes."""


@singledispatch
def at_offset(value: Any, offset: int) -> Any:
    """Return a copy of a tensor, or of a batch's or a module's tensors, that begins at the offset."""
    raise TypeError(type(value))


@at_offset.register
def _(value: Tensor, offset: int) -> Tensor:
    if not value.numel():
        return value
    strides = zip(value.shape, value.stride(), strict=True)
    extent = sum((size - 1) * stride for size, stride in strides) + 1
    buffer = torch.empty(extent + 64 + len(OFFSETS), dtype=value.dtype)
    start = -buffer.data_ptr() % 64 // value.itemsize + offset
    return buffer.as_strided(value.shape, value.stride(), start).copy_(value)


@at_offset.register
def _(value: Batch, offset: int) -> Batch:
    return value.map(lambda tensor: at_offset(tensor, offset))


@at_offset.register
def _(value: nn.Module, offset: int) -> nn.Module:
    moved = copy.deepcopy(value)
    for tensor in (*moved.parameters(), *moved.buffers()):
        tensor.data = at_offset(tensor.data, offset)
    return moved


def assert_same_bits(model: nn.Module, batch: Batch, expected: Tensor, rows: Any = slice(None)) -> None:
    """Assert a model's logits of a batch (some rows of them) at every offset of its weights and the batch."""
    for offset in OFFSETS:
        moved, given = at_offset(model, offset), at_offset(batch, offset)
        assert next(moved.parameters()).data_ptr() % 64 == offset * 4
        assert torch.equal(moved(given)[rows], expected), f"other bits at offset {offset}"
