"""Importing Feast in half of its time.

Feast decorates its classes with typeguard's ``typechecked``, which parses and recompiles every method: more
than half of what ``import feast`` takes, in each process. Python's ``-O`` turns that off; here it is left out
while Feast is imported, and only then. Definitions are checked by :mod:`mmlora.features.view_checks`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any


def import_feast() -> None:
    """Import Feast without recompiling it for run-time type checks, unless it is imported already."""
    if "feast" in sys.modules:
        return
    import typeguard

    original = typeguard.typechecked
    typeguard.typechecked = _unchecked
    try:
        importlib.import_module("feast")
    finally:
        typeguard.typechecked = original


def _unchecked(target: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Stand in for ``typeguard.typechecked``, with or without options."""
    return partial(_unchecked, **options) if target is None else target
