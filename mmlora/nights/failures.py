"""Why a domain isn't published for a night: recorded in the warehouse, shown by the view ``nights``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import wraps
from typing import Any, TypeVar, cast

from mmlora.errors import MmloraError, UsageError, meaning_of
from mmlora.redaction import redact
from mmlora.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)

Verb = TypeVar("Verb", bound=Callable[..., str])


def describe(error: BaseException) -> str:
    """Return an error as a one-line reason with secrets hidden; unexpected errors are marked as such."""
    text = str(error) if isinstance(error, MmloraError) else f"unexpected {type(error).__name__}: {error}"
    return redact(" ".join(text.split()))


@contextmanager
def failures_kept(workspace: Workspace, on: date, *domains: str) -> Iterator[None]:
    """Record an error as the reason why the domains aren't published, unless it is a usage error.

    Temporary file errors (a full disk) are raised as ``TransientError``.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        known = meaning_of(error) or error
        try:
            with workspace.open_warehouse() as warehouse:
                for domain in domains:
                    warehouse.record_failure(workspace.domain(domain), on, describe(known))
        except Exception as second:  # the first error is the one to report
            logger.debug("the failure of %s, %s can't be recorded: %s", ", ".join(domains), on, second)
        if known is error:
            raise
        raise known from error


def keeps_failures(verb: Verb) -> Verb:
    """Decorate a function of a date and a domain to record why it failed, unless it publishes nothing."""

    @wraps(verb)
    def kept(on: date, domain: str, **options: Any) -> str:
        if options.get("dry_run") or options.get("shadow"):
            return verb(on, domain, **options)
        workspace = options["workspace"] = options.get("workspace") or open_workspace()
        with failures_kept(workspace, on, domain):
            return verb(on, domain, **options)

    return cast(Verb, kept)
