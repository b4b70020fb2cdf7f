"""Import Feast in half of the usual time.

Feast decorates its classes with typeguard's ``typechecked``, which parses and recompiles every method; that
is more than half of the time of ``import feast``, in each process. Python's ``-O`` turns it off; here the
decorator is replaced during the import only. Definitions are checked by :mod:`mmlora.features.view_checks`.
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
