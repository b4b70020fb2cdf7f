"""Workspaces of nights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import take_warehouse


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("duckdb", "postgres"))]
)
def trained_on_each_warehouse(
    request: pytest.FixtureRequest,
    trained: tuple[Path, str],
    trained_workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The trained workspace, on each warehouse."""
    if request.param == "duckdb":
        url = f"duckdb:///{trained_workspace / 'scores.duckdb'}"
        take_warehouse(monkeypatch, trained_workspace, trained[1], url)
    if request.param == "postgres":
        take_warehouse(monkeypatch, trained_workspace, trained[1], request.getfixturevalue("postgres_url"))
    return trained_workspace
