"""Load a user's own feature views from their files and check them before they are registered with Feast.

All faults of all files are reported together when features are built, instead of one by one when a model is
trained or a night is scored.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmlora.errors import UsageError
from mmlora.features.feast_import import import_feast
from mmlora.features.view_checks import faults_of_view
from mmlora.schema import IdTypes

if TYPE_CHECKING:
    from feast import Entity
    from feast.repo_config import RepoConfig

_HELP = "see feature_repo/README.md"


def load_module(path: Path) -> ModuleType:
    """Import a file of definitions as a module."""
    import_feast()  # before the file does: it would take twice as long
    spec = importlib.util.spec_from_file_location(f"mmlora_feature_repo_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def own_views(
    files: Iterable[Path],
    *,
    offline: Path,
    entities: dict[str, Entity],
    ours: Sequence[Any],
    ids: IdTypes,
    config: RepoConfig,
) -> list[Any]:
    """Return the views that a user's files define.

    Args:
        files: Python files with a function ``views(offline, entities)``.
        offline: the offline store's folder.
        entities: Feast's entities by name: ``user``, ``item``, ``domain``.
        ours: the views that mmlora defines; tags may refer to their fields.
        ids: the types of the imported ids.
        config: the Feast repository's configuration; relative paths of sources start at its folder.

    Raises:
        UsageError: a file can't be run, or a view can't be read or can't be an input of the model.
    """
    faults: list[str] = []
    defined: list[tuple[Path, Any]] = []
    for path in files:
        try:
            defined += [(path, view) for view in _views_of(path, offline, entities)]
        except UsageError as error:
            faults.append(f"{path}: {error}")
    views = [view for _, view in defined]
    faults += _repeated("feature views", [*ours, *views])
    faults += _repeated("data sources", _sources([*ours, *views]))
    fields = {f"{view.name}__{field.name}" for view in [*ours, *views] for field in view.features}
    for path, view in defined:
        faults += [
            f"{path}: feature view {view.name}: {fault}"
            for fault in faults_of_view(view, ids=ids, fields=fields, config=config)
        ]
    if faults:
        raise UsageError("feature definitions:\n  " + "\n  ".join(faults))
    return views


def _views_of(path: Path, offline: Path, entities: dict[str, Entity]) -> list[Any]:
    from feast import FeatureView, OnDemandFeatureView

    try:
        define = getattr(load_module(path), "views", None)
        if not callable(define):
            raise UsageError(f"it doesn't define a function views(offline, entities): {_HELP}")
        views = define(offline, dict(entities))
    except UsageError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise UsageError(f"{type(error).__name__}{_line(error, path)}: {error}") from error
    if not isinstance(views, list | tuple):
        raise UsageError(f"views() returned {type(views).__name__}, not a list of feature views: {_HELP}")
    if strange := [view for view in views if not isinstance(view, FeatureView | OnDemandFeatureView)]:
        kinds = ", ".join(sorted({type(view).__name__ for view in strange}))
        raise UsageError(f"views() returned a list with {kinds} in it, not only feature views: {_HELP}")
    return list(views)


def _line(error: Exception, path: Path) -> str:
    """Return the line of the file where an error was raised."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    number = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    return f" in line {number}" if number else ""


def _sources(views: Iterable[Any]) -> list[Any]:
    """Return the views' sources, a shared one only once."""
    sources: list[Any] = []
    for view in views:
        source = getattr(view, "batch_source", None)
        if source is not None and not any(source == known for known in sources):
            sources.append(source)
    return sources


def _repeated(what: str, named: Iterable[Any]) -> list[str]:
    """Return a fault for each repeated name; Feast compares names without case."""
    seen: set[str] = set()
    faults = []
    for name in (thing.name for thing in named):
        if name.lower() in seen:
            faults.append(f"two {what} are named {name}: rename the one in your own feature_repo")
        seen.add(name.lower())
    return faults
