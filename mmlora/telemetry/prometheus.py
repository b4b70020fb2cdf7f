"""Figures in Prometheus's text format: printed, in a file for node_exporter, or served."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.telemetry.figures import WAREHOUSE_UP, Figure

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry, GaugeMetricFamily

logger = logging.getLogger(__name__)

Collect = Callable[[], Iterable[Figure]]


def as_text(figures: Iterable[Figure]) -> str:
    """Return figures in the text format."""
    from prometheus_client import generate_latest

    return generate_latest(_registry(lambda: figures)).decode()


def write_textfile(path: Path, figures: Iterable[Figure]) -> None:
    """Replace a file of node_exporter's textfile collector, in one step, so that no part of it is read."""
    from prometheus_client import write_to_textfile

    write_to_textfile(str(path), _registry(lambda: figures))


def serve(collect: Collect, *, port: int, address: str) -> tuple[int, threading.Thread]:
    """Serve figures, computed at each scrape, in a thread; return the port and the thread.

    Args:
        collect: computes the figures.
        port: the port; 0 takes a free one.
        address: the address to listen on.

    Raises:
        OSError: the port is taken, or the address isn't this machine's.
    """
    from prometheus_client import start_http_server

    server, thread = start_http_server(port, addr=address, registry=_registry(_or_down(collect)))
    return server.server_port, thread


def _or_down(collect: Collect) -> Collect:
    """Return a collection that never fails: without a warehouse it only says so."""

    def safe() -> Iterable[Figure]:
        try:
            return list(collect())
        except Exception as error:
            logger.warning("no metrics: %s", error)
            return [Figure(WAREHOUSE_UP, 0)]

    return safe


def _registry(collect: Collect) -> CollectorRegistry:
    from prometheus_client.core import CollectorRegistry

    class Collector:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield from _families(collect())

        def describe(self) -> list[GaugeMetricFamily]:
            return []  # else registering would compute everything

    registry = CollectorRegistry()
    registry.register(Collector())
    return registry


def _families(figures: Iterable[Figure]) -> Iterable[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    families: dict[str, GaugeMetricFamily] = {}
    for figure in figures:
        metric = figure.metric
        if metric.name not in families:
            name = f"mmlora_{metric.name}"
            families[metric.name] = GaugeMetricFamily(name, metric.help, labels=metric.labels)
        families[metric.name].add_metric(figure.labels, figure.value)
    return families.values()
