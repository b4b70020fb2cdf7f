"""``mmlora data``: read tables, check them, write them into the offline store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mmlora.pipeline.workspace import Workspace, open_workspace


def import_movielens(
    *,
    domain_by: Literal["gender", "age", "occupation", "genre"] = "gender",
    path: Path | None = None,
    positive_rating: int = 5,
) -> dict[str, Any]:
    """Import MovieLens-1M with one domain a gender, age group, occupation or first genre."""
    from mmlora.data.movielens import read_movielens

    workspace = open_workspace()
    interactions, profiles = read_movielens(
        path, domain_by=domain_by, positive_rating=positive_rating, cache=workspace.home / "cache"
    )
    return _write(workspace, interactions, profiles)


def import_tables(
    interactions: Path,
    *,
    users: Path | None = None,
    items: Path | None = None,
    domains: Path | None = None,
    columns: Mapping[str, str] | None = None,
    imported_at: datetime | None = None,
) -> dict[str, Any]:
    """Import anybody's Parquet or CSV tables; whatever columns the profiles have become features.

    Args:
        interactions: the interactions.
        users: user profiles; ``items`` and ``domains`` likewise.
        items: see users.
        domains: see users.
        columns: our column names and the tables' own.
        imported_at: when corrections and late rows became known; now when None.
    """
    from mmlora.data.reader import read_tables

    workspace = open_workspace()
    table, profiles = read_tables(
        interactions, users, items, domains, columns=columns, ids=workspace.ids_or_none, now=imported_at
    )
    return _write(workspace, table, profiles, imported_at)


def _write(
    workspace: Workspace, interactions: Any, profiles: Any, imported_at: datetime | None = None
) -> dict[str, Any]:
    from dataclasses import asdict

    report = workspace.store.write(interactions, profiles, imported_at=imported_at or datetime.now(UTC))
    return asdict(report)
