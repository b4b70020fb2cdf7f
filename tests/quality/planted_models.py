"""What is wrong with a model: each makes a manifest from the champion's, with the parts that it needs."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from typing import Any


def empty_vocabulary(workspace: Any, manifest: Any) -> Any:
    stored = deepcopy(workspace.parts.json(manifest.encoder))
    name = "item_profile__category"
    stored["tables"][name] = workspace.parts.put_table(
        workspace.parts.table(stored["tables"][name]).slice(0, 0)
    )
    return dataclasses.replace(manifest, encoder=workspace.parts.put_json(stored))


def random_weights(workspace: Any, manifest: Any) -> Any:
    import torch

    tensors = workspace.parts.tensors(manifest.backbone)
    generator = torch.Generator().manual_seed(3)
    shuffled = {
        name: value.flatten()[torch.randperm(value.numel(), generator=generator)].reshape(value.shape)
        if value.is_floating_point() and value.numel() > 1
        else value
        for name, value in tensors.items()
    }
    return dataclasses.replace(manifest, backbone=workspace.parts.put_tensors(shuffled))
