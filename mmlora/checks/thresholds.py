"""What the suites hold the data against."""

from __future__ import annotations

from dataclasses import dataclass

SILENT = "no rows on the last day"
"""How the reason begins why a domain is broken whose last day is missing, and nothing else is wrong."""


@dataclass(frozen=True)
class Thresholds:
    """Limits of both suites; the settings of the same names say the same.

    Attributes:
        window_days: days before the as-of date that sparsity, label rate and mean volume look back on.
        rich_min_rows, rich_min_positives, rich_min_users, rich_min_items: counts in the window from which a
            domain is rich.
        min_density: rows / (users * items) from which a domain is rich; 0 asks for none.
        ctr_min, ctr_max: label rate that a domain must have, as far as chance allows.
        volume_min_ratio, volume_max_ratio: rows of the last day over the mean day of the window before it.
        volume_min_mean: rows a day; a quieter domain counts as this loud when its last day is judged too
            full. Too empty is judged beyond chance, in quiet domains as well.
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
