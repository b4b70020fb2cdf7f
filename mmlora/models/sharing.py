"""Copies of modules that share the tensors' memory: to compile a model without changing or doubling it."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def shallow_copy(module: _Module) -> _Module:
    """Copy a module; its tensors share memory with the given one's, nothing else is shared.

    Moving, casting or replacing the copy's parameters leaves the given module as it is.
    """
    shared: dict[int, object] = {id(p): nn.Parameter(p.detach(), False) for p in module.parameters()}
    shared |= {id(buffer): buffer.detach() for buffer in module.buffers()}
    return copy.deepcopy(module, shared)
