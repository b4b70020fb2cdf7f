"""The metrics of nights, loads and models: declared once, computed from the warehouse.

``mmlora metrics`` prints them for Prometheus, as ``mmlora_<name>``; with OpenTelemetry, a process that has
worked on a night sends them as ``mmlora.<name>``. All are gauges: nights are batch jobs, so their state is in
the warehouse and not in a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["", "seconds", "bytes"]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: its name, with the unit at the end, by Prometheus's conventions.
        help: what it is.
        labels: the names of its labels.
        unit: its unit; empty for a plain number.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: Unit = ""


@dataclass(frozen=True)
class Figure:
    """A value of a metric, for one set of labels."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()

    @property
    def named_labels(self) -> Mapping[str, str]:
        """The labels' values by name."""
        return dict(zip(self.metric.labels, self.labels, strict=True))


_DOMAIN = ("domain",)

BUILD_INFO = Metric("build_info", "Version of mmlora that computed these figures; always 1.", ("version",))
WAREHOUSE_UP = Metric("warehouse_up", "1 if the warehouse could be read, otherwise 0 and little else.")
COLLECTED = Metric("collected_timestamp_seconds", "When these figures were computed.", unit="seconds")

NIGHT = Metric("night_timestamp_seconds", "00:00 UTC of the newest published night.", _DOMAIN, unit="seconds")
NIGHT_AGE = Metric(
    "night_age_seconds", "Time since 00:00 UTC of the newest published night.", _DOMAIN, unit="seconds"
)
PROMISED_AGE = Metric(
    "night_promised_age_seconds",
    "Age from which on readers see is_stale, by [promises] max_age_days.",
    _DOMAIN,
    unit="seconds",
)
STALE = Metric("night_stale", "1 if the newest published night is older than promised.", _DOMAIN)
PUBLISHED = Metric(
    "night_published_timestamp_seconds",
    "When the newest published night was published.",
    _DOMAIN,
    unit="seconds",
)
ROWS = Metric("night_rows", "Rows of the newest published night.", _DOMAIN)
USERS = Metric("night_users", "Users of the newest published night.", _DOMAIN)
PAIRS = Metric("night_pairs", "Pairs of users and items that the newest published night chose from.", _DOMAIN)
PAIRS_PER_SECOND = Metric(
    "night_pairs_per_second", "Pairs of the newest published night per second of scoring.", _DOMAIN
)
AUC = Metric("night_auc", "AUC of the newest night that later clicks measured.", _DOMAIN)
CALIBRATION = Metric(
    "night_calibration", "Sum of scores per click of the newest night that later clicks measured.", _DOMAIN
)
STATE = Metric(
    "night_state",
    "1 for the state of the newest expected night: published, stale, running, blocked or missing.",
    ("domain", "state"),
)
LOADS = Metric("loads", "Loads of the last seven nights by state.", ("date", "state"))
LOAD_SECONDS = Metric(
    "load_duration_seconds",
    "Time from the beginning of the newest ended load to its end.",
    _DOMAIN,
    unit="seconds",
)
CHECK_FAILED = Metric(
    "check_failed", "1 if a check of the newest night failed, else 0.", ("domain", "check", "severity")
)
CHECK_FIGURE = Metric(
    "check_figure", "Figure that a check of the newest night compared.", ("domain", "check")
)
CHAMPION = Metric(
    "champion_info", "The model that scores the next night; always 1.", ("domain", "model_version")
)
CHAMPION_SINCE = Metric(
    "champion_timestamp_seconds", "When the champion became champion.", _DOMAIN, unit="seconds"
)
FREE = Metric("workspace_free_bytes", "Free space of the workspace's disk.", unit="bytes")
SIZE = Metric("workspace_size_bytes", "Size of the workspace's disk.", unit="bytes")

STATES = ("published", "stale", "running", "blocked", "missing")
