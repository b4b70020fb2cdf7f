"""``work``: the one event from which logs, spans, metrics and lineage are made."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mmlora.redaction import redact
from mmlora.telemetry.observers import Observer, observers

if TYPE_CHECKING:
    from mmlora.telemetry.figures import Figure

logger = logging.getLogger(__name__)

_In = ParamSpec("_In")
_Out = TypeVar("_Out")

_current: ContextVar[Work | None] = ContextVar("mmlora_work", default=None)


@dataclass(frozen=True)
class Dataset:
    """Something that work reads or writes, by the names of OpenLineage's naming conventions.

    Attributes:
        namespace: where it is, e.g. ``file`` or ``postgres://host:5432``.
        name: its name there, e.g. a path or a table.
    """

    namespace: str
    name: str


@dataclass(eq=False)
class Work:
    """Something that is being worked on.

    Attributes:
        job: what is done: ``build_features``, ``validate``, ``train``, ``night``, ``score``, ``publish``, ...
        domain: for which domain; None for all.
        date: for which date.
        load: the load; None until it has begun.
        parent: the work that this is a part of.
        facts: what became known of it: ``rows``, ``pairs``, ``model_version``, ...
        reads: the datasets that it reads.
        writes: the datasets that it writes.
        seconds: how long it took; 0 until it has ended.
    """

    job: str
    domain: str | None = None
    date: datetime.date | None = None
    load: str | None = None
    parent: Work | None = None
    facts: dict[str, str | int | float] = field(default_factory=dict)
    reads: list[Dataset] = field(default_factory=list)
    writes: list[Dataset] = field(default_factory=list)
    seconds: float = 0.0
    _bound: dict[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> dict[str, str]:
        """The domain, date and load, as far as they are known."""
        known = {"domain": self.domain, "date": self.date, "load": self.load}
        return {name: str(value) for name, value in known.items() if value is not None}

    def add(
        self,
        *,
        load: str | None = None,
        reads: Sequence[Dataset] = (),
        writes: Sequence[Dataset] = (),
        **facts: str | int | float | None,
    ) -> None:
        """See :func:`note`."""
        self.load = load or self.load
        self.reads += reads
        self.writes += writes
        self.facts |= {name: value for name, value in facts.items() if value is not None}
        self._bind()

    def _bind(self) -> None:
        """Give structlog the subject too, where it is in use: Airflow's task logs are made by it."""
        if (structlog := sys.modules.get("structlog")) is not None:
            self._bound = {**structlog.contextvars.bind_contextvars(**self.subject), **self._bound}

    def _unbind(self) -> None:
        if self._bound:
            sys.modules["structlog"].contextvars.reset_contextvars(**self._bound)


def note(
    *,
    load: str | None = None,
    reads: Sequence[Dataset] = (),
    writes: Sequence[Dataset] = (),
    **facts: str | int | float | None,
) -> None:
    """Add to what the caller is working on what became known meanwhile; outside of any work nothing happens.

    Args:
        load: the load, once it has begun.
        reads: further datasets that are read.
        writes: further datasets that are written.
        facts: ``rows``, ``pairs``, ``model_version``, ...; those that are None are left out.
    """
    if (current := _current.get()) is not None:
        current.add(load=load, reads=reads, writes=writes, **facts)


def subject() -> dict[str, str]:
    """Return the domain, date and load that the caller's work is about; empty outside of any."""
    current = _current.get()
    return {} if current is None else current.subject


@contextmanager
def work(
    job: str,
    *,
    domain: object = None,
    date: datetime.date | None = None,
    load: str | None = None,
    reads: Sequence[Dataset] = (),
    writes: Sequence[Dataset] = (),
) -> Iterator[Work]:
    """Tell logs and observers what is being worked on while the block runs.

    Work inside other work is a part of it, and about the same domain, date and load unless it says otherwise.
    An observer that fails is logged and never stops the work.
    """
    parent = _current.get()
    about = Work(job, parent=parent, reads=[*reads], writes=[*writes])
    if parent is not None:
        about.domain, about.date, about.load = parent.domain, parent.date, parent.load
    about.domain = about.domain if domain is None else str(domain)
    about.date, about.load = date or about.date, load or about.load
    token, begun, error = _current.set(about), time.monotonic(), None
    about._bind()
    _tell(lambda observer: observer.begins(about))
    try:
        yield about
    except BaseException as raised:
        error = raised
        raise
    finally:
        about.seconds = time.monotonic() - begun
        _tell(lambda observer: observer.ends(about, error))
        if parent is None:
            _tell(lambda observer: observer.flush())
        about._unbind()
        _current.reset(token)


def record(collect: Callable[[], Iterable[Figure]]) -> None:
    """Let observers keep the state of nights; it is computed only if one of them does."""
    _tell(lambda observer: observer.records(collect))


def in_context(function: Callable[_In, _Out]) -> Callable[_In, _Out]:
    """Return a function for another thread that knows what the caller is working on."""
    context = copy_context()

    @wraps(function)
    def inside(*args: _In.args, **kwargs: _In.kwargs) -> _Out:
        return context.copy().run(function, *args, **kwargs)  # a context can't be entered twice at a time

    return inside


def _tell(what: Callable[[Observer], None]) -> None:
    for observer in observers():
        try:
            what(observer)
        except Exception as error:
            logger.warning("telemetry: %s; the work goes on", redact(str(error)))
            logger.debug("telemetry failed", exc_info=True)
