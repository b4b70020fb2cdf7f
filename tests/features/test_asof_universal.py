"""Feast's own universal offline-store tests, run on the ASOF store from a checkout of Feast.

They aren't in Feast's package, so this runs where ``FEAST_SOURCE`` names a checkout (its root), with the
packages that those tests import and mmlora doesn't need: ``make test-feast`` has them. Nothing is copied.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = os.environ.get("FEAST_SOURCE", "")
TESTS = "tests/integration"
FILES = {
    "offline_store/test_universal_historical_retrieval.py": (),
    "offline_store/test_persist.py": (),
    "offline_store/test_offline_write.py": (),
    "offline_store/test_push_features_to_offline_store.py": (),
    "offline_store/test_universal_materialization.py": (),
    "offline_store/test_feature_logging.py": (),
    # Retrieval without entity rows is refused.
    "offline_store/test_non_entity_mode.py": ("test_non_entity_mode",),
    "materialization/test_universal_materialization.py": (),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SOURCE, reason="FEAST_SOURCE names no checkout of Feast")
@pytest.mark.parametrize("name", FILES)
def test_passes_feasts_offline_store_tests(name):
    python = Path(SOURCE).resolve() / "sdk" / "python"
    assert (python / TESTS / name).is_file(), f"{python / TESTS} holds no {name}: is FEAST_SOURCE its root?"
    paths = [Path(__file__).parent / "feast_universal", ROOT, python]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")]),
        "FULL_REPO_CONFIGS_MODULE": "asof_repo_configuration",
        "FEAST_IS_LOCAL_TEST": "True",
        "IS_TEST": "True",
        "FEAST_USAGE": "False",
    }
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "no:cacheprovider", "--integration"]
    command += ["-W", "ignore::pytest.PytestConfigWarning", "-rA", f"{TESTS}/{name}"]
    done = subprocess.run(command, cwd=python, env=environment, capture_output=True, text=True, check=False)
    passed = re.findall(r"^PASSED .*::(\w+)", done.stdout, re.MULTILINE)
    failed = re.findall(r"^(?:FAILED|ERROR) .*::(\w+)", done.stdout, re.MULTILINE)
    surprising = [test for test in failed if not test.startswith(FILES[name] or ("none is allowed to",))]
    assert (passed or failed) and not surprising, done.stdout[-5000:] + done.stderr[-1000:]
