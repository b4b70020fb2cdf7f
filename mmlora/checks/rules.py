"""The two suites as data: the bounds of each column of the frame, and the verdict when it is outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmlora.check_rules import CheckRule
from mmlora.checks.figure_queries import MIN_HISTORY_DAYS
from mmlora.checks.thresholds import SILENT, Thresholds
from mmlora.schema import Verdict

INTERACTIONS = "interactions"
DOMAIN_SPARSITY = "domain_sparsity"


@dataclass(frozen=True)
class Rule:
    """An expectation: each domain's value in a column is within bounds (NULL passes).

    Attributes:
        check: the check's rule; None in the sparsity suite, whose expectations are no faults.
        suite: ``interactions`` or ``domain_sparsity``.
        column: the frame's column.
        meaning: the expectation, in a sentence for Data Docs.
        reason: the message for a domain that fails; ``{value}`` is its value.
        verdict: the best verdict of a domain that fails; None if a failure only warns.
        minimum, maximum: inclusive bounds; None for no bound.
        located: whether a failure names the first file at fault.
    """

    suite: str
    column: str
    meaning: str
    reason: str
    verdict: Verdict | None
    minimum: float | None = None
    maximum: float | None = None
    located: bool = False
    check: CheckRule | None = None


def suite_rules(thresholds: Thresholds, checks: Mapping[str, CheckRule]) -> list[Rule]:
    """Return the rules of both suites, ``interactions`` first.

    Args:
        thresholds: the window, and the limits of the sparsity suite.
        checks: the rules in force of the checks, by name.
    """
    return [*_row_rules(checks), *_rate_rules(thresholds, checks), *_sparsity_rules(thresholds)]


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


def _interactions_rule(
    check: CheckRule, column: str, meaning: str, reason: str, *, located: bool = False
) -> Rule:
    bound = "minimum" if check.least else "maximum"
    return Rule(
        INTERACTIONS,
        column,
        meaning,
        reason,
        "broken" if check.severity == "block" else None,
        located=located,
        check=check,
        **{bound: check.threshold},
    )


def _row_rules(checks: Mapping[str, CheckRule]) -> list[Rule]:
    return [
        _interactions_rule(
            checks[column],
            column,
            f"{meaning} (The figure counts rows that violate this.)",
            f"{{value:,.0f}} rows {reason}",
            located=column != "duplicate_keys",
        )
        for column, (meaning, reason) in _ROWS.items()
    ]


def _rate_rules(limits: Thresholds, checks: Mapping[str, CheckRule]) -> list[Rule]:
    days = limits.window_days
    names = ("label_rate_low", "label_rate_high", "volume_high", "volume_low")
    low, high, many, few = (checks[name] for name in names)
    rate = f"The label rate of the last {days} days is"
    chance = "give or take three standard deviations"
    young = f"domains younger than {MIN_HISTORY_DAYS} days aren't checked"
    return [
        _interactions_rule(
            low,
            "ctr_at_most",
            f"{rate} {low.threshold:g} or more, {chance}.",
            f"label rate of {{value:.4g}} at most, under {low.threshold:g}",
        ),
        _interactions_rule(
            high,
            "ctr_at_least",
            f"{rate} {high.threshold:g} or less, {chance}.",
            f"label rate of {{value:.4g}} at least, over {high.threshold:g}",
        ),
        _interactions_rule(
            many,
            "last_day_over_mean",
            f"The last day has no more than {many.threshold:g} times the rows of a mean day of the"
            f" {days} days before ({limits.volume_min_mean:g} rows, where the mean is less; {young}).",
            f"last day {{value:,.1f}} times the mean day, over {many.threshold:g}",
        ),
        _interactions_rule(
            few,
            "last_day_under_mean",
            f"The last day has at least {few.threshold:g} times the rows of a mean day of the"
            f" {days} days before ({chance}; {young}).",
            f"last day {{value:.3g}} times the mean day at most, under {few.threshold:g}",
        ),
        *([_silence_rule(checks["silence"], days, young)] if few.threshold else []),
        *(_plain_rule(checks[name]) for name in _LAST_DAY if few.threshold or name != "quiet_day"),
    ]


_LAST_DAY = (
    *("quiet_day", "busy_day", "label_rate_change", "label_rate_change_all"),
    *("missing_hours", "busiest_user"),
    *("repeated_pairs", "new_users", "new_items", "late_share"),
)


def _plain_rule(check: CheckRule) -> Rule:
    """Return the expectation of a check whose column has its name."""
    what, _, fault = check.meaning.partition(": ")
    meaning = f"{what[0].upper()}{what[1:]}: {check.limit}."
    return _interactions_rule(
        check, check.name, meaning, f"{fault or what} ({check.name} {{value:.3g}}; {check.limit})"
    )


def _silence_rule(check: CheckRule, days: int, young: str) -> Rule:
    return _interactions_rule(
        check,
        "silence_chance",
        "A last day without rows (or several last days) is no less likely than three standard deviations, by"
        f" the {days} days before ({young}).",
        f"{SILENT}: by the days before, a chance of {{value:.2g}}, under {check.threshold:g}",
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
