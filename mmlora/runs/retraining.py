"""Training a model again whose parts were lost: what a run remembers of them is forgotten.

The same request on the same data gives the same bits on the same machine, so the same model version.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import mmlora
from mmlora.hyperparameters import SETTINGS, read_by
from mmlora.registry.verify import BundleVerifier
from mmlora.runs.starting import COLD
from mmlora.runs.state import Run, RunConfig
from mmlora.training import TRAINING_REVISION
from mmlora.workspace import Workspace

logger = logging.getLogger(__name__)

_PART = re.compile(r'"(part|calibration)": "([0-9a-f]{64})"')
_SUFFIX = {"part": "safetensors", "calibration": "json"}
_OPTIONS = ("backbone", "adaptation", "features")


def forget_lost(workspace: Workspace, run: Run) -> None:
    """Forget the steps of a run whose parts are gone or damaged, and its registration if its bundle is."""
    records = {file: _parts(file) for file in run.folder.rglob("*.json")}
    named = {part for parts in records.values() for part in parts}
    lost = {(kind, part) for kind, part in named if workspace.parts.fault(part, _SUFFIX[kind])}
    shared = {file: _parts(file) for file in (run.folder.parent / "steps").glob("*.json")} if lost else {}
    for file, parts in {**records, **shared}.items():
        if lost & parts:
            logger.warning("%s: what this step left is gone or damaged, so it is done again", file)
            file.unlink(missing_ok=True)
    registered = run.result("registered")
    if registered and BundleVerifier(workspace.bundles).faults(registered["model_version"]):
        logger.warning("run %s: its model %s is registered again", run.run_id, registered["model_version"])
        (run.folder / "registered.json").unlink()


def retrain_command(workspace: Workspace, model_version: str) -> str | None:
    """Return the command that trains a model version again.

    None when its run isn't kept, or is of other code, which would train another model, or when the model that
    it began with isn't stored any more.
    """
    for file in sorted(workspace.home.glob("runs/[!.]*/registered.json")):
        if json.loads(file.read_text(encoding="utf-8"))["model_version"] == model_version:
            config = Run(file.parent).config
            current = (config.code_version, config.training_revision)
            same_code = current == (mmlora.__version__, TRAINING_REVISION)
            begins = config.settings.start == COLD or workspace.bundles.exists(config.settings.start)
            return _command(workspace, config) if same_code and begins else None
    return None


def _parts(file: Path) -> set[tuple[str, ...]]:
    return set(_PART.findall(file.read_text(encoding="utf-8")))


def _command(workspace: Workspace, config: RunConfig) -> str:
    words = [*_variables(workspace, config), "mmlora train"]
    if config.base is not None:
        words += ["experts", f"--base {config.base}", f"--domain {shlex.quote(config.expert_domains[0])}"]
    words.append(f"--as-of {config.as_of}")
    if config.base is None:
        words += [f"--{name} {getattr(config.settings, name)}" for name in _OPTIONS]
    return " ".join(words)


def _variables(workspace: Workspace, config: RunConfig) -> Iterator[str]:
    """Yield the other settings in which a run differs from those of today, as environment variables."""
    then, now = (each.model_dump(mode="json") for each in (config.settings, workspace.settings.training))
    for name in SETTINGS:
        if name not in (*_OPTIONS, *read_by("machine")) and then[name] not in (now[name], None):
            text = then[name] if isinstance(then[name], str) else json.dumps(then[name])
            yield f"MMLORA_TRAINING__{name.upper()}={shlex.quote(text)}"
