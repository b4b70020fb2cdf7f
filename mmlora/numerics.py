"""The environment that determines the last bits of a score, and MKL's reproducible mode.

The last bits of a product may change with the memory alignment of its operands, because MKL chooses kernels
by alignment unless strict conditional numerical reproducibility is on. ``MKL_CBWR`` turns it on. MKL reads
the variable at its first product, so ``mmlora/__init__`` calls :func:`settle` before any part of mmlora can
be used. Measurements by processor are in docs/design/bits.md.

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
"""Each processor's best kernels that don't depend on alignment or the number of threads."""

# Branches with a strict mode, according to MKL's documentation; AMD processors treat all of them as AUTO.
_STRICT_BRANCHES = ("AUTO", "AVX2", "AVX512", "AVX512_E1")
# These variables affect the choice of kernels too, so hashes are comparable only with the same values.
_OTHER_SETTINGS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# Kernels are chosen by these features, some of which a virtual machine may hide (x86-64, then Arm).
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
_ALL_SETTINGS, _OFF = -1, 1  # MKL_CBWR_ALL and MKL_CBWR_BRANCH_OFF of mkl.h
_MIXED = " | "


@dataclass(frozen=True)
class Numerics:
    """The environment that computed scores; hashes can be compared only between equal environments.

    Attributes:
        processor: the processor's name, family and features; or the GPU's name.
        kernels: how kernels are chosen, e.g. ``MKL_CBWR=AUTO,STRICT``.
        torch_version: e.g. ``2.13.0+cpu``.
    """

    processor: str
    kernels: str
    torch_version: str

    def __str__(self) -> str:
        return f"{self.processor}, {self.kernels}, torch {self.torch_version}"

    @property
    def repeats(self) -> bool:
        """Whether repeated computations have the same bits: true on CPUs of a single kind."""
        mixed = any(_MIXED in value for value in (self.processor, self.kernels, self.torch_version))
        return not mixed and not self.kernels.startswith("CUDA")

    @property
    def is_strict(self) -> bool:
        """Whether repeated computations have the same bits wherever their operands lie in memory."""
        mode = self.kernels.split(", ")[0].removeprefix(f"{MKL_SETTING}=")
        return self.repeats and _is_strict(mode)


def settle() -> None:
    """Put MKL into its strict reproducible mode, unless the user chose a mode."""
    if not os.environ.get(MKL_SETTING):
        os.environ[MKL_SETTING] = STRICT


def here() -> Numerics:
    """Return the environment of this process's CPU computations, without loading torch.

    A user's setting that may change the bits is warned about once per process.
    """
    warn_of_own_setting()
    from importlib.metadata import version

    return Numerics(_processor(), _kernels(), version("torch"))


def together(seen: Collection[Numerics]) -> Numerics:
    """Return the combined environment of rows computed by several kinds of machine."""
    columns = zip(*((each.processor, each.kernels, each.torch_version) for each in seen), strict=True)
    return Numerics(*(_MIXED.join(sorted(set(column))) for column in columns))


@cache
def warn_of_own_setting() -> None:
    """Warn once per process if MKL's mode doesn't guarantee the same bits in a rerun."""
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
    """Return MKL's present mode, as ``mkl_cbwr_get`` does; None if MKL isn't available."""
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
    # MKL accepts lower-case names of branches, but not lower-case flags.
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
    # Not "OFF", which would look like a setting that MKL treats as AUTO.
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
    """Return the name, numbers and features of the first processor in Linux's ``/proc/cpuinfo``."""
    pairs = (line.split(":", 1) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in pairs}
    can = facts.get("flags", facts.get("Features", "")).split()
    # The name alone may be generic in a virtual machine, e.g. "AMD EPYC".
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
