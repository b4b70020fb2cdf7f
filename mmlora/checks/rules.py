"""The two suites as data: the bounds of each column of the frame, and the verdict when it is outside."""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.checks.figures import MIN_HISTORY_DAYS
from mmlora.checks.thresholds import SILENT, Thresholds
from mmlora.schema import Verdict

INTERACTIONS = "interactions"
DOMAIN_SPARSITY = "domain_sparsity"
SILENCE_CHANCE = 0.00135
"""Chance of a value more than three standard deviations below the mean."""


@dataclass(frozen=True)
class Rule:
    """An expectation: each domain's value in a column is within bounds (NULL passes).

    Attributes:
        suite: ``interactions`` or ``domain_sparsity``.
        column: the frame's column.
        meaning: the expectation, in a sentence for Data Docs.
        reason: the message for a domain that fails; ``{value}`` is its value.
        verdict: the best verdict of a domain that fails.
        minimum, maximum: inclusive bounds; None for no bound.
        located: whether a failure names the first file at fault.
    """

    suite: str
    column: str
    meaning: str
    reason: str
    verdict: Verdict
    minimum: float | None = None
    maximum: float | None = None
    located: bool = False


def suite_rules(thresholds: Thresholds) -> list[Rule]:
    """Return the rules of both suites, ``interactions`` first."""
    return [*_row_rules(), *_rate_rules(thresholds), *_sparsity_rules(thresholds)]


# By column: the expectation, and the message of a failure after the number of rows.
_ROWS = {
    "wrong_type": (
        "The columns of every file have the canonical types.",
        "in files with a column of another type",
    ),
    "null_user_id": ("Every row has a user_id.", "without user_id"),
    "null_item_id": ("Every row has an item_id.", "without item_id"),
    "null_domain_id": ("Every row has a domain_id.", "without domain_id"),
    "null_event_timestamp": ("Every row has an event_timestamp.", "without event_timestamp"),
    "null_known_at": ("Every row has a known_at.", "without known_at"),
    "null_label": ("Every row has a label.", "without label"),
    "label_not_0_or_1": ("Every label is 0 or 1.", "with a label other than 0 and 1"),
    "time_out_of_range": (
        "Every event_timestamp is later than 1970-01-01 and no more than an hour after known_at.",
        "with an event_timestamp out of range",
    ),
    "wrong_day_folder": (
        "Every row is in the folder of its event_timestamp's day (UTC).",
        "in the folder of another day",
    ),
    "duplicate_keys": (
        "user_id, item_id, domain_id, event_timestamp and known_at together are unique.",
        "that repeat another row's key",
    ),
}


def _row_rules() -> list[Rule]:
    return [
        Rule(
            INTERACTIONS,
            column,
            f"{meaning} (The figure counts rows that violate this.)",
            f"{{value:,.0f}} rows {reason}",
            "broken",
            maximum=0,
            located=column != "duplicate_keys",
        )
        for column, (meaning, reason) in _ROWS.items()
    ]


def _rate_rules(limits: Thresholds) -> list[Rule]:
    days = limits.window_days
    rate = f"The label rate of the last {days} days is"
    chance = "give or take three standard deviations"
    young = f"domains younger than {MIN_HISTORY_DAYS} days aren't checked"
    return [
        Rule(
            INTERACTIONS,
            "ctr_at_most",
            f"{rate} {limits.ctr_min:g} or more, {chance}.",
            f"label rate of {{value:.4g}} at most, under {limits.ctr_min:g}",
            "broken",
            minimum=limits.ctr_min,
        ),
        Rule(
            INTERACTIONS,
            "ctr_at_least",
            f"{rate} {limits.ctr_max:g} or less, {chance}.",
            f"label rate of {{value:.4g}} at least, over {limits.ctr_max:g}",
            "broken",
            maximum=limits.ctr_max,
        ),
        Rule(
            INTERACTIONS,
            "last_day_over_mean",
            f"The last day has no more than {limits.volume_max_ratio:g} times the rows of a mean day of the"
            f" {days} days before ({limits.volume_min_mean:g} rows, where the mean is less; {young}).",
            f"last day {{value:,.1f}} times the mean day, over {limits.volume_max_ratio:g}",
            "broken",
            maximum=limits.volume_max_ratio,
        ),
        Rule(
            INTERACTIONS,
            "last_day_under_mean",
            f"The last day has at least {limits.volume_min_ratio:g} times the rows of a mean day of the"
            f" {days} days before ({chance}; {young}).",
            f"last day {{value:.3g}} times the mean day at most, under {limits.volume_min_ratio:g}",
            "broken",
            minimum=limits.volume_min_ratio,
        ),
        *([_silence_rule(days, young)] if limits.volume_min_ratio else []),
    ]


def _silence_rule(days: int, young: str) -> Rule:
    return Rule(
        INTERACTIONS,
        "silence_chance",
        "A last day without rows (or several last days) is no less likely than three standard deviations, by"
        f" the {days} days before ({young}).",
        f"{SILENT}: by the days before, a chance of {{value:.2g}}, under {SILENCE_CHANCE:g}",
        "broken",
        minimum=SILENCE_CHANCE,
    )


def _sparsity_rules(limits: Thresholds) -> list[Rule]:
    days = limits.window_days
    thin = "else the domain is thin: it trains no expert of its own"
    rules = [
        Rule(
            DOMAIN_SPARSITY,
            "rows",
            f"Every expected domain has rows in the last {days} days, else it is absent:"
            " the backbone alone scores it.",
            f"no rows in the last {days} days",
            "absent",
            minimum=1,
        )
    ]
    for column, minimum in (
        ("rows", limits.rich_min_rows),
        ("positives", limits.rich_min_positives),
        ("users", limits.rich_min_users),
        ("items", limits.rich_min_items),
        ("density", limits.min_density),
    ):
        meaning = f"The last {days} days have {minimum:g} {column} or more, {thin}."
        if column == "density":
            meaning = f"Rows over users times items is {minimum:g} or more in the last {days} days, {thin}."
        value = "{value:.3g}" if column == "density" else "{value:,.0f}"
        reason = f"{value} {column}, under {minimum:,g}"
        rules.append(Rule(DOMAIN_SPARSITY, column, meaning, reason, "thin", minimum=minimum))
    return rules
