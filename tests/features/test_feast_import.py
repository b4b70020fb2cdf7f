"""Feast is imported without being recompiled, and typeguard is left as it was."""

import subprocess
import sys

CODE = """
import typeguard
before = typeguard.typechecked
from mmlora.features.feast_import import import_feast
import_feast()
import feast
assert typeguard.typechecked is before
assert not hasattr(feast.FeatureService.__init__, "__wrapped__")
print(any("typeguard" in function.__code__.co_names for function in (
    feast.FeatureService.__init__, feast.Entity.__init__, feast.FeatureView.__init__)))
"""


def test_feast_is_imported_without_runtime_type_checks():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_plain_import_has_runtime_type_checks():
    """What the other test asserts would be true of nothing if Feast had dropped typeguard."""
    code = CODE.replace("import_feast()\nimport feast", "import feast").replace("import_feast()", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
