"""`mmlora features`: what columns become, the settings that say otherwise, and what a build decides."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from mmlora.errors import UsageError
from mmlora.pipeline.features import build_features, list_features
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp

LAST = date(2001, 4, 9)


def test_each_column_is_listed_with_its_kind_which_settings_override(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list_features()
    became = {row.column: (row.became, row.values, row.missing) for row in found.columns}
    assert became == {
        "users.age": ("categorical", 34, 0.0),
        "users.city": ("categorical", 2, 0.0),
        "items.kinds": ("bag", 3, 0.0),
        "items.length": ("dense", 40, 0.0),
    }
    assert all(row.why for row in found.columns)
    views = {row.view: row.features for row in found.views}
    assert set(views) == {"user_affinity", "domain_affinity", "user_domain_affinity"}
    assert views["user_affinity"] == ("kinds", "kinds_lift", "kinds_rows")

    monkeypatch.setenv("MMLORA_FEATURES__COLUMNS", '{"users.age": "dense", "items.kinds": "drop"}')
    build_features(LAST)
    fields = {f.name: (f.kind, dict(f.tags)) for f in open_workspace().feature_repo.contract("all").fields}
    assert fields["user_profile__age"] == ("dense", {"kind": "dense"})
    assert not any("kinds" in name for name in fields), "what is left out has no affinity either"

    monkeypatch.setenv("MMLORA_FEATURES__COLUMNS", '{"users.street": "dense"}')
    with pytest.raises(UsageError, match=r"users\.street, but the imported columns are users\.age"):
        list_features()
    monkeypatch.setenv("MMLORA_FEATURES__COLUMNS", '{"users.age": "number", "age": "dense"}')
    with pytest.raises(
        UsageError, match=r'"users\.age" = "number" is not understood.*categorical, dense, log'
    ):
        list_features()


def test_the_prior_follows_the_first_build_and_a_setting_overrides_it(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(made_up_workspace / "offline" / "features")
    first = build_features(LAST - timedelta(days=3))
    assert first.reason == "first build"
    assert build_features(LAST).since == LAST - timedelta(days=3), "an increment goes on with it"
    monkeypatch.setenv("MMLORA_FEATURES__PRIOR_CTR", "0.1")
    assert build_features(LAST).reason == "settings or queries have changed"


def test_feast_is_not_imported_where_nothing_has_changed(made_up_workspace: Path, made_up: MadeUp) -> None:
    through = made_up.last_day
    code = (
        "import sys\nfrom datetime import date\nfrom mmlora.pipeline.features import build_features\n"
        f"build_features(date.fromisoformat('{through}'))\nprint('feast' in sys.modules)"
    )

    def imports_feast() -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    assert imports_feast() == "False"
    own = made_up_workspace / "feature_repo" / "own.py"
    own.parent.mkdir()
    own.write_text("def views(offline, entities):\n    return []\n")
    assert imports_feast() == "True", "definitions of one's own may read anything"
    own.unlink()
    assert [imports_feast(), imports_feast()] == ["True", "False"], "once more without them"
