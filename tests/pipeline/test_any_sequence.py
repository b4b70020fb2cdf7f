"""Whatever is run in whatever order, and killed wherever, readers see what a model predicts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conftest import MadeUp, assume_rich, take_warehouse, use_workspace
from tests.faults import needs_fork
from tests.pipeline.readers_model import Decision, Event, Model
from tests.pipeline.sequence import Sequence
from tests.pipeline.sequence_start import FIRST, LAST, score_of_pairs, store_another

pytestmark = needs_fork


@pytest.fixture(scope="module")
def begun(
    trained: tuple[Path, str], made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Model]:
    """A trained workspace with two versions, whose nights need no validation, and the model of it."""
    home = Path(shutil.copytree(trained[0], tmp_path_factory.mktemp("begun") / "var"))
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        versions = (trained[1], store_another(trained[1]))
        assume_rich(FIRST, LAST)
        lab = Path(shutil.copytree(home, tmp_path_factory.mktemp("lab") / "var"))
        use_workspace(here, lab)
        scores = {version: score_of_pairs(version, lab.parent) for version in versions}
    table = pq.read_table(made_up.interactions).to_pylist()
    names = ("user_id", "item_id", "domain_id", "event_timestamp", "label", "event_timestamp")
    events = [Event(*(row[name] for name in names)) for row in table]
    items = sorted({event.item for event in events})
    return home, Model(events, scores, items, [Decision(None, trained[1], 0)])


def _machine(
    begun: tuple[Path, Model], here: pytest.MonkeyPatch, folder: Path, url: Callable[[Path], str]
) -> type[Sequence]:
    """Return the machine whose sequences begin with a copy of the workspace, on a warehouse of its own."""
    numbers = count()
    version = begun[1].champion(None)

    def begin() -> tuple[Path, Model]:
        home = Path(shutil.copytree(begun[0], folder / str(next(numbers)) / "var"))
        here.delenv("MMLORA_WAREHOUSE_URL", raising=False)
        use_workspace(here, home)
        here.setenv("MMLORA_SCORING__CARRY_OVER", "true")
        if warehouse_url := url(home):
            take_warehouse(here, home, version, warehouse_url)
            assume_rich(FIRST, LAST)
        model = begun[1]
        return home, Model([*model.events], model.scores, model.items, [Decision(None, version, 0)])

    return type("Sequence", (Sequence,), {"begin": staticmethod(begin)})


def _run(machine: type[Sequence], sequences: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            phases=[Phase.generate],  # to shrink a failure takes hours: each sequence runs for seconds
            suppress_health_check=list(HealthCheck),
            deadline=None,
            derandomize=sequences < 10,
            database=None,
            report_multiple_bugs=False,
        ),
    )


def test_readers_see_what_the_model_predicts(
    begun: tuple[Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(_machine(begun, monkeypatch, tmp_path, lambda _: ""), sequences=2, steps=6)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_readers_see_what_the_model_predicts_in_many_sequences(
    begun: tuple[Path, Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    sequences = int(os.environ.get("MMLORA_TEST_SEQUENCES", "500" if kind == "sqlite" else "50"))
    url = {
        "sqlite": lambda _: "",
        "duckdb": lambda home: f"duckdb:///{home / 'scores.duckdb'}",
        "postgres": lambda _: request.getfixturevalue("new_database")(),
    }[kind]
    _run(_machine(begun, monkeypatch, tmp_path, url), sequences, steps=12)
