"""Spans and metrics: what they hold, and that they reach a collector by OTLP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mmlora.pipeline.score import score_and_publish
from mmlora.redaction import remember
from mmlora.telemetry import otel, work, working
from mmlora.telemetry.otel import OpenTelemetry
from tests.telemetry.conftest import ON

MMLORA = [sys.executable, "-m", "mmlora_cli.main"]


class Collector:
    """What a local OTLP/HTTP receiver got."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resources: list[dict[str, str]] = []

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(_attributes(resource.resource))
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        else:
            assert path == "/v1/metrics"
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}


def _attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@contextmanager
def collector() -> Iterator[tuple[str, Collector]]:
    received = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture
def in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[InMemorySpanExporter, InMemoryMetricReader]:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    observer = OpenTelemetry(SimpleSpanProcessor(spans), metrics)
    monkeypatch.setattr(working, "observers", lambda: (observer,))
    return spans, metrics


def _points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: list(metric.data.data_points) for metric in scope.metrics}


def test_a_failed_part_is_a_failed_span_without_secrets(
    in_memory: tuple[InMemorySpanExporter, InMemoryMetricReader],
) -> None:
    remember("postgresql://me:sesame-open@db/scores")
    with pytest.raises(ValueError), work("night", date=ON), work("score", domain="news"):
        raise ValueError("no sesame-open")
    score, night = in_memory[0].get_finished_spans()
    assert score.parent is not None
    assert score.parent.span_id == night.context.span_id
    assert (score.name, score.status.description) == ("score", "no ***")
    assert score.attributes == {"mmlora.domain": "news", "mmlora.date": "2001-04-09"}
    (event,) = score.events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == "no ***"
    assert "sesame" not in str(event.attributes["exception.stacktrace"])
    durations = _points(in_memory[1])["mmlora.work.duration"]
    assert {tuple(point.attributes.items()) for point in durations} == {
        (("job", "score"), ("domain", "news"), ("error.type", "ValueError")),
        (("job", "night"), ("error.type", "ValueError")),
    }


def test_a_night_counts_rows_and_pairs_and_keeps_the_state_of_the_warehouse(
    in_memory: tuple[InMemorySpanExporter, InMemoryMetricReader], trained_workspace: Path
) -> None:
    night = score_and_publish(ON, domain="news")
    (load,) = night.loads
    points = _points(in_memory[1])
    assert {point.attributes["job"]: point.value for point in points["mmlora.work.rows"]} == {
        "score": load.rows,
        "publish": load.rows,
    }
    (pairs,) = points["mmlora.work.pairs"]
    assert pairs.value > load.rows
    (rows,) = points["mmlora.night_rows"]
    assert (dict(rows.attributes), rows.value) == ({"domain": "news"}, load.rows)
    assert {"mmlora.night_age_seconds", "mmlora.loads", "mmlora.check_failed"} <= set(points)


def test_a_command_sends_its_spans_and_metrics_to_the_collector_before_it_ends(
    trained_workspace: Path,
) -> None:
    with collector() as (url, received):
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "nights"}
        scored = [*MMLORA, "score", "--date", str(ON), "--domain", "news"]
        done = subprocess.run(scored, env=environment, capture_output=True, text=True, check=True)
    by_name = {span.name: span for span in received.spans}
    assert set(by_name) == {"night", "score", "publish"}
    night = by_name["night"]
    assert {by_name[name].parent_span_id for name in ("score", "publish")} == {night.span_id}
    published = _attributes(by_name["publish"])
    assert published["mmlora.domain"] == "news"
    assert published["mmlora.load"].startswith("2001-04-09-1-")
    assert received.resources[0]["service.name"] == "nights"
    assert received.metrics["mmlora.work.duration"].unit == "s"
    assert "mmlora.night_stale" in received.metrics
    assert "telemetry" not in done.stderr


def test_spans_are_part_of_those_of_a_provider_that_is_already_set() -> None:
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
from mmlora.telemetry import work
with trace.get_tracer("airflow").start_as_current_span("task"), work("night"):
    pass
night, task = spans.get_finished_spans()
print(night.name, night.parent.span_id == task.context.span_id)
"""
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "none"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **gone}, capture_output=True, text=True, check=True)
    assert done.stdout == "night True\n"


def test_a_collector_that_is_gone_stops_nothing(trained_workspace: Path) -> None:
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    scored = [*MMLORA, "score", "--date", str(ON), "--domain", "news"]
    done = subprocess.run(scored, env={**os.environ, **gone}, capture_output=True, text=True, check=True)
    assert "pairs scored and published" in done.stdout


def test_a_collector_that_is_gone_is_waited_for_briefly() -> None:
    code = """
import time
from mmlora.telemetry import work
with work("night"):
    begun = time.monotonic()
print(time.monotonic() - begun)
"""
    gone = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **gone}, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8, "it was 14 s with the exporter's own limit"


@pytest.mark.parametrize(
    ("variables", "seconds"), [({}, 2), ({"TIMEOUT": "7"}, 7), ({"TIMEOUT": "7", "TRACES_TIMEOUT": "9"}, 9)]
)
def test_the_variables_say_how_long_the_collector_is_waited_for(
    variables: dict[str, str], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    assert otel._exporter("traces")._client._timeout == seconds


@pytest.mark.parametrize(
    ("variables", "loaded"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        (
            {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9",
                "OTEL_METRICS_EXPORTER": "none",
            },
            True,
        ),
    ],
)
def test_nothing_is_imported_without_a_receiver(variables: dict[str, str], loaded: bool) -> None:
    code = """
import sys
from mmlora.telemetry import work
with work("night"):
    pass
print([name for name in ("opentelemetry", "openlineage", "requests", "google") if name in sys.modules])
"""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENLIN"))}
    done = subprocess.run([sys.executable, "-c", code], env={**plain, **variables}, capture_output=True)
    assert (done.stdout.decode().strip() != "[]") == loaded, done.stderr
