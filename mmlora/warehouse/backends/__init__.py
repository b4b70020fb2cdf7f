"""The databases that can hold a warehouse: their differences, in modules of their own.

To add a database, write a module with a :class:`~mmlora.warehouse.backends.base.Backend` named ``BACKEND``
and add it to ``_MODULES``. A module is imported when its database is used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from mmlora.errors import UsageError
from mmlora.redaction import redact
from mmlora.warehouse.backends.base import Backend

_MODULES = {
    # module by the name in URLs, which is SQLAlchemy's name of the dialect
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "duckdb": "duckdb",
}
_ALIASES = {"postgres": "postgresql"}


@cache
def backend_named(name: str) -> Backend:
    """Return the backend of a dialect; raise ``KeyError`` for an unknown one."""
    backend: Backend = import_module(f"{__name__}.{_MODULES[_ALIASES.get(name, name)]}").BACKEND
    return backend


def backend_of(dialect: sa.Dialect) -> Backend:
    """Return the backend of an engine's or a connection's dialect."""
    return backend_named(dialect.name)


def parse_url(url: str) -> tuple[sa.URL, Backend]:
    """Parse a warehouse URL; return the URL for SQLAlchemy to connect with, and its backend.

    Raises:
        UsageError: it isn't the URL of a database that can hold a warehouse.
    """
    try:
        parsed = sa.make_url(url)
        name = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        raise UsageError(
            f"the warehouse URL is not a database URL (not shown: it may contain a password); {_valid()}"
        ) from None
    backend = backend_named(name) if name in (*_MODULES, *_ALIASES) else None
    if backend is not None and (accepted := backend.accept(parsed)) is not None:
        return accepted, backend
    shown = redact(parsed.render_as_string(hide_password=True))
    raise UsageError(f"{shown!r} can't be a warehouse; {_valid()}")


def _valid() -> str:
    forms = [f"{backend_named(name).example} ({backend_named(name).title})" for name in _MODULES]
    return f"valid are {', '.join(forms[:-1])} and {forms[-1]}"
