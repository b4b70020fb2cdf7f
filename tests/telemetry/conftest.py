"""A workspace whose last night is published in one domain and rejected in another."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from tests.conftest import use_workspace

ON = date(2001, 4, 9)


@pytest.fixture(scope="session")
def mixed_night(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, not to be changed: `news` is published and measured, `sport` fails a check."""
    from mmlora.pipeline.evaluate import evaluate
    from mmlora.pipeline.score import score_and_publish

    home = Path(shutil.copytree(trained[0], tmp_path_factory.mktemp("mixed") / "var"))
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        here.setenv("MMLORA_QUALITY__MIN_CLICKS", "1")
        score_and_publish(ON, domain="news")
        evaluate()
        here.setenv("MMLORA_CHECKS__RULES", '{"near_constant": {"threshold": 100}}')
        (load,) = score_and_publish(ON, domain="sport").loads
        assert load.state == "rejected"
    return home
