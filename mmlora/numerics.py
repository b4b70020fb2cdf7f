"""What the last bits of a score depend on, and MKL's reproducible mode, which is set before torch computes.

The same product of the same values may have other last bits where its operands lie elsewhere in memory: MKL
picks its kernels by alignment unless its strict conditional numerical reproducibility is on. ``MKL_CBWR``
turns it on. MKL reads it at its first product, so ``mmlora/__init__`` calls :func:`settle`, and nothing that
imports any part of mmlora can pass it by. What was seen on which processor: docs/design/bits.md.

Source: https://www.intel.com/content/www/us/en/docs/onemkl/developer-guide-linux/2025-0/reproducibility-conditions.html
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

MKL_SETTING = "MKL_CBWR"
STRICT = "AUTO,STRICT"
"""Each processor's best kernels, and of those the ones that don't heed alignment or the number of threads."""

# Of strict mode, as MKL documents it; an AMD processor takes AUTO for all of them.
_STRICT_BRANCHES = ("AUTO", "AVX2", "AVX512", "AVX512_E1")
# These choose kernels as well, so they are part of what a hash belongs to.
_OTHER_SETTINGS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# A virtual machine may hide some of what its processor can do, and kernels go by these (x86-64, then Arm).
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
_ALL_SETTINGS, _OFF = -1, 1  # MKL_CBWR_ALL and MKL_CBWR_BRANCH_OFF of mkl.h
_MIXED = " | "


@dataclass(frozen=True)
class Numerics:
    """What computed scores: their hash can be compared with another's only where all three are equal.

    Attributes:
        processor: its name, family and what it can do; or the GPU's name.
        kernels: how its kernels are chosen, e.g. ``MKL_CBWR=AUTO,STRICT``.
        torch_version: e.g. ``2.13.0+cpu``.
    """

    processor: str
    kernels: str
    torch_version: str

    def __str__(self) -> str:
        return f"{self.processor}, {self.kernels}, torch {self.torch_version}"

    @property
    def repeats(self) -> bool:
        """Whether the same computation has the same bits again: on CPUs of one kind it has."""
        mixed = any(_MIXED in value for value in (self.processor, self.kernels, self.torch_version))
        return not mixed and not self.kernels.startswith("CUDA")


def settle() -> None:
    """Put MKL into its strict reproducible mode, unless the user chose a mode."""
    if not os.environ.get(MKL_SETTING):
        os.environ[MKL_SETTING] = STRICT


def here() -> Numerics:
    """Return what this process computes with on the CPU; torch isn't loaded for it.

    A setting of the user's that may give other bits is warned about, once a process.
    """
    warn_of_own_setting()
    from importlib.metadata import version

    return Numerics(_processor(), _kernels(), version("torch"))


def together(seen: Collection[Numerics]) -> Numerics:
    """Return what stands for rows that several kinds of machine computed; equal to none of them."""
    columns = zip(*((one.processor, one.kernels, one.torch_version) for one in seen), strict=True)
    return Numerics(*(_MIXED.join(sorted(set(column))) for column in columns))


@cache
def warn_of_own_setting() -> None:
    """Warn, once a process, where MKL's mode doesn't give a rerun the same bits."""
    if not _has_mkl():
        return
    setting = os.environ.get(MKL_SETTING, "")
    if mkl_mode() == _OFF:
        logger.warning(
            "torch computed before mmlora was imported, so MKL never read %s=%s: a rerun may give scores "
            "with other last bits; import mmlora first",
            MKL_SETTING,
            setting,
        )
    elif not _is_strict(setting):
        logger.warning(
            "%s=%s is not strict: the last bits of scores may change with where MKL's operands lie in "
            "memory, so a rerun may give another content hash; unset it, or set it to %s",
            MKL_SETTING,
            setting,
            STRICT,
        )


def mkl_mode() -> int | None:
    """Return the mode that MKL says it is in, as ``mkl_cbwr_get`` does; None where it can't be asked."""
    torch = sys.modules.get("torch")
    file = torch and torch.__file__
    if not file:
        return None
    import ctypes

    try:
        library = ctypes.CDLL(str(Path(file).parent / "lib" / "libtorch_cpu.so"))
        return int(library.mkl_serv_cbwr_get(_ALL_SETTINGS))
    except (OSError, AttributeError):  # another system, or a torch without MKL
        return None


def _is_strict(setting: str) -> bool:
    # MKL takes lower-case names of branches, but knows no lower-case flag.
    branch, _, flag = setting.removeprefix("BRANCH=").partition(",")
    return branch == "COMPATIBLE" or (branch in _STRICT_BRANCHES and flag == "STRICT")


def _has_mkl() -> bool:
    import platform

    return platform.machine() in ("x86_64", "AMD64")


def _kernels() -> str:
    names = [name for name in _OTHER_SETTINGS if os.environ.get(name)]
    others = [f"{name}={os.environ[name]}" for name in names]
    if not _has_mkl():
        return ", ".join(["no MKL", *others])
    # OFF would read like a setting, and MKL takes that one for AUTO.
    mode = "unread" if mkl_mode() == _OFF else os.environ.get(MKL_SETTING, "unset")
    return ", ".join([f"{MKL_SETTING}={mode}", *others])


@cache
def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        import platform

        return platform.processor() or platform.machine()
    return processor_of(text)


def processor_of(cpuinfo: str) -> str:
    """Name the first processor of Linux's ``/proc/cpuinfo``: its name, its numbers, what it can do."""
    pairs = (line.split(":", 1) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in pairs}
    can = facts.get("flags", facts.get("Features", "")).split()
    # The name alone may be a virtual machine's: "AMD EPYC".
    parts = ("vendor_id", "cpu family", "model", "stepping")
    arm = ("CPU implementer", "CPU variant", "CPU part", "CPU revision")
    numbers = [facts[name] for name in (*parts, *arm) if name in facts]
    return " ".join(
        [
            facts.get("model name", "processor"),
            f"({'/'.join(numbers)})",
            *(feature for feature in _FEATURES if feature in can),
        ]
    )
