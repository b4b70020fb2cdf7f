"""A stored file that is missing or was changed stops every command that would read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from mmlora.errors import DataError
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.data import accept_files
from mmlora.pipeline.features import build_features
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.train import train
from mmlora.pipeline.validate import validate
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)
VERBS: dict[str, Callable[[], object]] = {
    "validate": lambda: validate(ON),
    "features build": lambda: build_features(ON),
    "train": lambda: train(ON, features="ids", adaptation="none"),
    "score": lambda: score_and_publish(ON, domain="news"),
    "backfill": lambda: backfill("news", ON, ON),
}


@pytest.mark.parametrize("day", ["2001-03-05", "2001-04-08"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: os.truncate(path, 60)], ids=["gone", "cut"])
def test_a_missing_or_truncated_file_stops_every_command(
    made_up_workspace: Path, change: Callable[[Path], None], day: str
) -> None:
    (file,) = (made_up_workspace / "offline" / "interactions" / f"day={day}").glob("*.parquet")
    change(file)
    for verb in VERBS.values():
        with pytest.raises(DataError, match=f"day={day}"):
            verb()
    assert not any((made_up_workspace / name).exists() for name in ("warehouse.db", "staging", "registry"))
    assert len(accept_files()) == 1
    open_workspace().store.check()
