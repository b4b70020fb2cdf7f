"""The device that computes scores, and the precisions that it supports."""

from __future__ import annotations

import torch

from mmlora.errors import UsageError
from mmlora.names import Device, Precision
from mmlora.numerics import Numerics, here

# Names in ``torch.cpu.get_capabilities()``, on x86-64 and ARM, of native bfloat16 multiplication.
_CPU_BFLOAT16 = ("avx512_bf16", "avx10_2", "amx_bf16", "bf16", "sve_bf16")


def torch_device(device: Device) -> str:
    """Return torch's name of a device; ``auto`` takes a GPU when there is one.

    Raises:
        UsageError: the device does not exist on this machine.
    """
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise UsageError("device cuda: torch doesn't find a GPU; use auto or cpu")
    return "cpu"


def numerics_of(device: str) -> Numerics:
    """Return the numerics of a device of :func:`torch_device`."""
    if device == "cpu":
        return here()
    return Numerics(torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}", torch.__version__)


def require_precision(precision: Precision, device: str) -> None:
    """Reject a precision that a device only emulates, which is slower than float32.

    Raises:
        UsageError: the device doesn't compute the precision natively.
    """
    if precision == "bfloat16" and not has_bfloat16(device):
        unit = "GPU" if device == "cuda" else "processor"
        raise UsageError(
            f"precision bfloat16: this machine's {unit} doesn't compute it natively; use float32 "
            "([scoring] precision)"
        )


def has_bfloat16(device: str) -> bool:
    """Return whether a device computes bfloat16 natively instead of emulating it."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_BFLOAT16)
