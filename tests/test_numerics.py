"""MKL's mode: set before torch computes, the user's own kept and warned about, and said with every load."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from mmlora import numerics
from mmlora.numerics import Numerics, here, processor_of, together

STRICT_FLAG = 0x10000  # MKL_CBWR_STRICT of mkl.h
HAS_MKL = torch.backends.mkl.is_available()
NEEDS_MKL = pytest.mark.skipif(not HAS_MKL, reason="torch has no MKL here")


def fresh(code: str, **variables: str) -> tuple[str, str]:
    """What a process of its own prints and logs, with MKL's mode only as given."""
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr.strip()


@NEEDS_MKL
def test_mkl_itself_says_that_it_is_strict_in_these_tests() -> None:
    torch.randn(64, 64) @ torch.randn(64, 64)
    mode = numerics.mkl_mode()
    assert mode is None or mode & STRICT_FLAG, "something had torch compute before mmlora was imported"
    assert here().kernels.startswith("MKL_CBWR=") and "unread" not in here().kernels


@NEEDS_MKL
@pytest.mark.parametrize("given", [{}, {"MKL_CBWR": ""}])
@pytest.mark.parametrize("first", ["import mmlora, torch", "import torch, mmlora"])
def test_it_is_set_where_the_user_chose_nothing(given: dict[str, str], first: str) -> None:
    code = (
        f"{first}; from mmlora import numerics; torch.ones(64, 64) @ torch.ones(64, 64)\n"
        "print(numerics.here().kernels, numerics.mkl_mode())"
    )
    printed, logged = fresh(code, **given)
    kernels, mode = printed.rsplit(" ", 1)
    assert kernels.startswith("MKL_CBWR=AUTO,STRICT")
    assert mode == "None" or int(mode) & STRICT_FLAG
    assert logged == ""


WARN_TWICE = "from mmlora import numerics; numerics.here(); print(numerics.here().kernels)"


@NEEDS_MKL
@pytest.mark.parametrize("setting", ["AUTO", "AVX512", "AVX2", "SSE4_2,STRICT", "auto,strict", "OFF"])
def test_a_users_setting_that_breaks_the_promise_wins_and_is_warned_about_once(setting: str) -> None:
    printed, logged = fresh(WARN_TWICE, MKL_CBWR=setting)
    assert printed.startswith(f"MKL_CBWR={setting}")
    assert logged.count("is not strict") == 1 and "set it to AUTO,STRICT" in logged


@pytest.mark.parametrize("setting", ["AUTO,STRICT", "AVX2,STRICT", "BRANCH=AVX512,STRICT", "COMPATIBLE"])
def test_a_users_setting_that_keeps_the_promise_is_taken_in_silence(setting: str) -> None:
    assert fresh(WARN_TWICE, MKL_CBWR=setting)[1] == ""


@NEEDS_MKL
@pytest.mark.skipif(numerics.mkl_mode() is None, reason="MKL can't be asked here")
def test_torch_that_computed_before_mmlora_came_is_warned_about() -> None:
    printed, logged = fresh("import torch; torch.ones(9, 9) @ torch.ones(9, 9)\n" + WARN_TWICE)
    assert printed.startswith("MKL_CBWR=unread")
    assert logged.count("import mmlora first") == 1


@NEEDS_MKL
def test_training_warns_as_well() -> None:
    code = (
        "from mmlora.training.loop import TrainingOptions, reproducible\n"
        "for _ in range(2):\n"
        "    with reproducible(TrainingOptions(device='cpu')): pass"
    )
    assert fresh(code, MKL_CBWR="AUTO")[1].count("is not strict") == 1


def test_what_else_chooses_kernels_is_said() -> None:
    printed, _ = fresh(WARN_TWICE, ONEDNN_MAX_CPU_ISA="AVX2")
    assert printed.endswith(", ONEDNN_MAX_CPU_ISA=AVX2")


def test_a_processor_is_named_by_what_tells_its_bits_apart() -> None:
    intel = (
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
        "model name\t: Intel(R) Xeon(R) Processor\nstepping\t: 8\nflags\t\t: fpu avx2 avx512f amx_bf16\n"
        "\nprocessor\t: 1\nflags\t\t: fpu\n"
    )
    assert processor_of(intel) == "Intel(R) Xeon(R) Processor (GenuineIntel/6/143/8) avx2 avx512f amx_bf16"
    arm = (
        "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        "CPU variant\t: 0x0\nCPU part\t: 0xd4f\nCPU revision\t: 1\n"
    )
    assert processor_of(arm) == "processor (0x41/0x0/0xd4f/1) asimd bf16"


def test_rows_of_several_kinds_of_machine_are_of_none() -> None:
    one, other = Numerics("a", "k", "2"), Numerics("b", "k", "2")
    assert together([one, one]) == one and one.repeats
    mixed = together([other, one])
    assert (mixed.processor, mixed.kernels, mixed.torch_version) == ("a | b", "k", "2")
    assert not mixed.repeats
