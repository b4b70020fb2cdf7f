"""Copies of modules that share the tensors' memory: to compile a model without changing or doubling it."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def shallow_copy(module: _Module) -> _Module:
    """Copy a module; only the memory of its tensors is shared with the original.

    Moving, casting or replacing the copy's parameters doesn't change the original.
    """
    shared: dict[int, object] = {id(p): nn.Parameter(p.detach(), False) for p in module.parameters()}
    shared |= {id(buffer): buffer.detach() for buffer in module.buffers()}
    return copy.deepcopy(module, shared)
