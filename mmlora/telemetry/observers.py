"""Who is told about work: only what standard variables and files name a receiver for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mmlora.redaction import redact

if TYPE_CHECKING:
    from mmlora.telemetry.figures import Figure
    from mmlora.telemetry.working import Work

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told about work."""

    def begins(self, work: Work) -> None:
        """Take note that work begins."""

    def ends(self, work: Work, error: BaseException | None) -> None:
        """Take note that it has ended, with an error or without."""

    def records(self, collect: Callable[[], Iterable[Figure]]) -> None:
        """Keep figures of the warehouse's state, if that is of use; ``collect`` computes them."""

    def flush(self) -> None:
        """Deliver everything: the process may end next."""


@cache
def observers() -> tuple[Observer, ...]:
    """Return who is told in this process; nothing is imported unless the environment names a receiver."""
    found: list[Observer] = []
    both = ((_otlp_is_wanted, "telemetry", _open_telemetry), (lineage_is_wanted, "lineage", _open_lineage))
    for wanted, name, make in both:
        if wanted():
            try:
                found.append(make())
            except ModuleNotFoundError as error:
                logger.warning("no %s without %s: pip install 'mmlora[%s]'", name, error.name, name)
            except Exception as error:  # of a wrong configuration
                logger.warning("no %s: %s; the work goes on", name, redact(str(error)))
    return tuple(found)


def _otlp_is_wanted() -> bool:
    signals = ("", "TRACES_", "METRICS_")
    named = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT") for signal in signals)
    return named and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def _open_telemetry() -> Observer:
    from mmlora.telemetry.otel import OpenTelemetry

    return OpenTelemetry.of_environment()


def lineage_is_wanted() -> bool:
    """Return whether OpenLineage's client is configured; without it, it would print events."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    names = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")
    files = (Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser())
    return any(value and name.startswith(names) for name, value in os.environ.items()) or any(
        file.is_file() for file in files
    )


def _open_lineage() -> Observer:
    from openlineage.client import OpenLineageClient

    from mmlora.telemetry.lineage import OpenLineage

    return OpenLineage(OpenLineageClient())
