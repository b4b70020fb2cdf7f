"""A training setting is declared once, and everything that follows from its declaration agrees with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mmlora.hyperparameters import OFFERED, SETTINGS, read_by
from mmlora.hyperparameters.setting import Declared
from mmlora.runs.training_run import ignored_by
from mmlora.settings import TrainingSettings
from mmlora.training.search import MOVES, TUNED

PAGE = (Path(__file__).parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## `[training]`")[2].partition("\n## ")[0]
STEPS = ("crosses", "backbone", "expert", "gate")


def rows(text: str) -> list[tuple[list[str], str]]:
    """Return the names and the second cell of each row of a page's tables."""
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`(\w+)`", first), second.strip()) for first, second, *_ in cells]


def test_a_training_setting_is_declared_for_the_settings_too() -> None:
    assert set(SETTINGS) == set(TrainingSettings.model_fields) - {"schedule"}


def test_the_settings_page_names_the_options_of_the_command() -> None:
    sentence = SECTION.partition("takes")[2].partition("as options too")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(OFFERED)


def test_the_settings_page_names_the_tuned_settings() -> None:
    table = SECTION.partition("### Tuning")[2]
    assert {name for names, _ in rows(table) for name in names} == set(TUNED)


@pytest.mark.parametrize("one", SETTINGS.values(), ids=SETTINGS)
def test_the_settings_and_the_model_refuse_the_same_numbers(one: Declared) -> None:
    numbers: tuple[Any, ...] = (-1, 0, 0.5, 1, 2, 1.5, float("nan"))
    if one.plain not in (int, float):
        numbers = ("no such name",) if one.plain is not Path else ()
    for number in numbers:
        try:
            TrainingSettings(**{one.name: number})
            refused = False
        except ValidationError:
            refused = True
        assert refused == (one.fault(number) is not None), number
    assert one.fault(one.default) is None


@pytest.mark.parametrize("name", TUNED)
def test_every_value_of_a_search_is_valid(name: str) -> None:
    for up in (False, True):
        value = SETTINGS[name].default
        for _ in range(12):
            value = MOVES[name].next(value, up)
            assert SETTINGS[name].fault(value) is None


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in read_by("machine")])
def test_a_steps_key_contains_what_it_and_earlier_steps_read(name: str) -> None:
    holding = [step for step in STEPS if name not in ignored_by(step)]
    assert holding == list(STEPS[len(STEPS) - len(holding) :]), "no later step ignores it"
    assert ("expert" in holding) == (name not in read_by("gate", "refit"))


@pytest.mark.parametrize("name", [name for name, one in SETTINGS.items() if one.setting.late])
def test_a_late_setting_is_in_keys_and_records_only_if_changed(name: str) -> None:
    changed = {"label_smoothing": 0.1, "negatives_per_row": 4.0, "start": "warm"}[name]
    assert name not in TrainingSettings().as_kept()
    kept = TrainingSettings(**{name: changed}).as_kept()
    assert kept == {**TrainingSettings().as_kept(), name: changed}
    assert TrainingSettings(**TrainingSettings().as_kept()) == TrainingSettings()


def test_declarations_import_nothing_heavy() -> None:
    code = "import sys, mmlora.hyperparameters, mmlora_cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "annotated_types", "torch", "numpy"} & set(done.stdout.split())
