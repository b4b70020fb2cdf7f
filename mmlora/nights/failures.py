"""Why a domain isn't published for a night: kept in the warehouse, whatever failed (the view ``nights``)."""

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
    """Return an error as a reason on one line, its secrets hidden; what isn't mmlora's own is named."""
    text = str(error) if isinstance(error, MmloraError) else f"unexpected {type(error).__name__}: {error}"
    return redact(" ".join(text.split()))


@contextmanager
def failures_kept(workspace: Workspace, on: date, *domains: str) -> Iterator[None]:
    """Keep an error as the reason why the domains aren't published; a wrong option or name is no reason.

    Errors of files that may pass (a full disk) leave as ``TransientError``.
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
        except Exception as second:  # the first is what counts
            logger.debug("the failure of %s, %s can't be kept: %s", ", ".join(domains), on, second)
        if known is error:
            raise
        raise known from error


def keeps_failures(verb: Verb) -> Verb:
    """Have a verb of a date and a domain keep why it failed, unless nothing is to be published."""

    @wraps(verb)
    def kept(on: date, domain: str, **options: Any) -> str:
        if options.get("dry_run"):
            return verb(on, domain, **options)
        workspace = options["workspace"] = options.get("workspace") or open_workspace()
        with failures_kept(workspace, on, domain):
            return verb(on, domain, **options)

    return cast(Verb, kept)
