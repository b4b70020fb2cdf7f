"""The datasets that work reads and writes, by the names that lineage has for them.

A dataset is a kind of thing, not a version of it: which rows, load or model it was is in the facets of the
run. So the graph of a catalog stays small: interactions, profiles and feature views lead to the staged loads
and the table of scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from mmlora.schema import ENTITY_KEYS
from mmlora.telemetry import Dataset
from mmlora.workspace import Workspace

_FEAST = "mmlora"
"""Feast's namespace for a project is its name, and each view's name is the view's."""


def sources(workspace: Workspace) -> list[Dataset]:
    """Return the imported tables: interactions, and the profiles that there are."""
    folders = [workspace.store.profile_folder(entity) for entity in ENTITY_KEYS]
    existing = [folder for folder in folders if folder.exists()]
    return [Dataset("file", str(path)) for path in (workspace.offline / "interactions", *existing)]


def feature_views(names: Iterable[str | None]) -> list[Dataset]:
    """Return feature views, each once; None stands for a field of no view."""
    return [Dataset(_FEAST, name) for name in sorted({name for name in names if name})]


def training_sets(workspace: Workspace) -> Dataset:
    """Return the training sets."""
    return Dataset("file", str(workspace.home / "training_sets"))


def models(workspace: Workspace) -> Dataset:
    """Return the models: the registry of bundles."""
    return Dataset("file", str(workspace.home / "registry"))


def staged(workspace: Workspace) -> Dataset:
    """Return the staged loads."""
    return Dataset("file", str(workspace.home / "staging"))


def scores(workspace: Workspace) -> Dataset:
    """Return the warehouse's table of scores; a server's is named by host, database, schema and table."""
    url = urlsplit(workspace.warehouse_url)
    if url.hostname is None:
        return Dataset(url.scheme, f"{url.path.removeprefix('/')}/scores".replace("//", "/"))
    return Dataset(f"postgres://{url.hostname}:{url.port or 5432}", f"{url.path.strip('/')}.public.scores")
