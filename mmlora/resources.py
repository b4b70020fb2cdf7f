"""Locate ``sql/``, ``dags/`` and ``feature_repo/``, in the repository or in the installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """Return the folder or file ``name`` (e.g. ``"sql/candidates.sql"``) of the shipped resources.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for base in (PACKAGE / "_resources", PACKAGE.parent):
        if (base / name).exists():
            return base / name
    raise FileNotFoundError(f"{name} is missing from this installation of mmlora: reinstall it")


def sql(name: str) -> str:
    """Return the text of ``sql/<name>``, e.g. ``sql("candidates.sql")``."""
    return _text(resource(f"sql/{name}"))


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
