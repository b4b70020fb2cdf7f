"""A trained workspace, made once and copied by each test."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mmlora.pipeline.data import import_tables
from mmlora.pipeline.train import train
from mmlora.pipeline.validate import validate
from tests.conftest import SMALL, MadeUp

LAST_NIGHT = date(2001, 4, 9)
TRAINED = date(2001, 4, 8)


@pytest.fixture(scope="session")
def trained(made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace with a model and the verdicts of two nights, to be copied, and the model's version."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as here:
        enter(here, folder)
        import_tables(made_up.interactions, users=made_up.users, items=made_up.items)
        version = train(TRAINED, features="ids", adaptation="none").model_version
        validate(LAST_NIGHT)
    return folder / "var", str(version)


def enter(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a folder the current one, and ``folder/var`` the workspace."""
    monkeypatch.chdir(folder)
    for name, value in {**SMALL, "MMLORA_HOME": str(folder / "var")}.items():
        monkeypatch.setenv(name, value)
