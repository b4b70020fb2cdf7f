"""Every planted fault is caught by the checks that it names, or isn't caught if it names none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmlora.check_rules import RULE_NAMES
from tests.benchmarks.bench_planted_faults import caught_by, configure, prepare
from tests.quality.planted_faults import FAULTS, Fault


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A folder, and a healthy workspace in it with a model and a published night."""
    environment, here = dict(os.environ), Path.cwd()
    folder = tmp_path_factory.mktemp("shop")
    configure()
    yield folder, prepare(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(here)


def test_the_faults_are_forty_different_ones() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) == 40


def test_the_docs_name_each_fault_with_its_checks() -> None:
    page = (Path(__file__).parents[2] / "docs/quality.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.splitlines() if re.match(r"\| \d+ \|", row)]
    assert [(int(row[1]), row[2].strip()) for row in rows] == [
        (number, fault.name) for number, fault in enumerate(FAULTS, 1)
    ]
    for fault, row in zip(FAULTS, rows, strict=True):
        assert set(fault.checks) <= set(re.findall(r"`(\w+)`", row[3])) <= set(RULE_NAMES)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught_by_its_checks(base: tuple[Path, Path], fault: Fault) -> None:
    caught = caught_by(fault, *base)
    if fault.refusal:
        (error,) = caught
        assert error.startswith("refused: ") and fault.refusal in error
    else:
        assert set(fault.checks) <= set(caught) and bool(fault.checks) == bool(caught)
