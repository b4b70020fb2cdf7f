"""The thresholds of the suites."""

from __future__ import annotations

from dataclasses import dataclass

SILENT = "no rows on the last day"
"""Start of the reason of a domain that is broken only because its last day is missing."""


@dataclass(frozen=True)
class Thresholds:
    """Limits of both suites, with the names of the settings.

    Attributes:
        window_days: days before the as-of date over which sparsity, label rate and mean volume are computed.
        rich_min_rows, rich_min_positives, rich_min_users, rich_min_items: minimum counts in the window for a
            rich domain.
        min_density: minimum rows / (users * items) for a rich domain; 0 for no minimum.
        ctr_min, ctr_max: bounds of a domain's label rate, with an allowance for chance.
        volume_min_ratio, volume_max_ratio: bounds of the last day's rows relative to the mean day of the
            window before it.
        volume_min_mean: rows per day; the mean day counts as at least this many rows when the last day is
            checked for too many. The check for too few allows for chance instead.
    """

    window_days: int = 30
    rich_min_rows: int = 500
    rich_min_positives: int = 50
    rich_min_users: int = 10
    rich_min_items: int = 20
    min_density: float = 0.0
    ctr_min: float = 0.001
    ctr_max: float = 0.95
    volume_min_ratio: float = 0.25
    volume_max_ratio: float = 50.0
    volume_min_mean: float = 100.0
