"""Spans and metrics of OpenTelemetry, configured by its own variables (``OTEL_*``) and nothing else.

A work is a span, and its parts are that span's children. A span provider that is already set is used, such as
that of Airflow, whose tasks are then the parents of ours.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode

import mmlora
from mmlora.redaction import redact
from mmlora.telemetry.figures import Figure
from mmlora.telemetry.working import Work

_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400)
"""Bounds of the histogram of durations: from a domain of a few pairs to hours of training."""
_TIMEOUT = 2.0
"""Seconds that a request to the collector may take, unless the variables say: a process waits for it."""
_UNITS = {"": "", "seconds": "s", "bytes": "By"}


class OpenTelemetry:
    """The observer that sends spans and metrics.

    Args:
        spans: where ended spans go; None where traces aren't wanted.
        metrics: what collects the metrics; None where they aren't wanted.
    """

    def __init__(self, spans: SpanProcessor | None, metrics: MetricReader | None) -> None:
        resource = Resource.create({"service.version": mmlora.__version__, **_named()})
        readers = [metrics] if metrics else []
        self._metrics = MeterProvider(readers, resource, shutdown_on_exit=False)
        present = trace.get_tracer_provider()
        if not isinstance(present, TracerProvider):
            present = TracerProvider(resource=resource, shutdown_on_exit=False)
            if spans is not None:
                present.add_span_processor(spans)
        self._tracer, self._provider = present.get_tracer("mmlora", mmlora.__version__), present
        self._begun: dict[Work, Any] = {}
        meter = self._meter = self._metrics.get_meter("mmlora", mmlora.__version__)
        self._seconds = meter.create_histogram(
            "mmlora.work.duration",
            unit="s",
            description="Duration of work: building features, validating, scoring, publishing, training.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._counts = {
            "rows": meter.create_counter("mmlora.work.rows", description="Rows that work wrote."),
            "pairs": meter.create_counter("mmlora.work.pairs", description="Pairs that were scored."),
        }

    @classmethod
    def of_environment(cls) -> OpenTelemetry:
        """Return one that exports by OTLP what the variables name an endpoint for."""
        spans = _exporter("traces") if _wanted("TRACES") else None
        metrics = _exporter("metrics") if _wanted("METRICS") else None
        return cls(
            None if spans is None else BatchSpanProcessor(spans),
            None if metrics is None else PeriodicExportingMetricReader(metrics),
        )

    def begins(self, work: Work) -> None:
        """Start a span, as a child of what is under way."""
        span = self._tracer.start_span(work.job)
        self._begun[work] = span, context.attach(trace.set_span_in_context(span))

    def ends(self, work: Work, error: BaseException | None) -> None:
        """End the span, and count the work."""
        span, token = self._begun.pop(work)
        context.detach(token)
        facts = {**work.subject, **work.facts}
        span.set_attributes({f"mmlora.{name}": value for name, value in facts.items()})
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, redact(str(error))))
            span.add_event("exception", _told(error))
        span.end()
        about = {"job": work.job, **({"domain": work.domain} if work.domain else {})}
        failed = {} if error is None else {"error.type": type(error).__qualname__}
        self._seconds.record(work.seconds, {**about, **failed})
        for name, counter in self._counts.items():
            if error is None and (count := work.facts.get(name)):
                counter.add(float(count), about)

    def records(self, collect: Callable[[], Iterable[Figure]]) -> None:
        """Set the gauges of the warehouse's state."""
        for figure in collect():
            metric = figure.metric
            gauge = self._meter.create_gauge(f"mmlora.{metric.name}", _UNITS[metric.unit], metric.help)
            gauge.set(figure.value, figure.named_labels)

    def flush(self) -> None:
        """Send everything."""
        self._provider.force_flush()
        self._metrics.force_flush()


def _told(error: BaseException) -> Mapping[str, str]:
    """Return the standard attributes of an exception, with its secrets hidden."""
    return {
        "exception.type": type(error).__qualname__,
        "exception.message": redact(str(error)),
        "exception.stacktrace": redact("".join(traceback.format_exception(error))),
    }


def _named() -> dict[str, str]:
    """Return our name, unless the variables give one."""
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    given = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in attributes
    return {} if given else {"service.name": "mmlora"}


def _wanted(signal: str) -> bool:
    """Return whether a signal has an endpoint and isn't switched off."""
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def _exporter(signal: str) -> Any:
    """Return the exporter of a signal for the protocol of the variables, HTTP by default."""
    name = "otlp_proto_grpc" if _variable(signal, "PROTOCOL") == "grpc" else "otlp_proto_http"
    (found,) = entry_points(group=f"opentelemetry_{signal}_exporter", name=name) or (None,)
    if found is None:
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise ModuleNotFoundError(f"No module of {package}", name=package)
    timeout = {} if _variable(signal, "TIMEOUT") else {"timeout": _TIMEOUT}
    return found.load()(**timeout)


def _variable(signal: str, name: str) -> str:
    """Return what the variables say of a signal, or else of all signals."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}")
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")
