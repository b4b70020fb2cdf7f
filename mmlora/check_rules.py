"""Every check that can keep a domain from being published: what it is for, its threshold, its owner.

A rule compares one figure of a domain (or of its load) with a threshold. If it fails and its severity is
``block``, the domain isn't published for that date and readers keep the last good night; ``warn`` is recorded
and logged. Settings (``[checks.rules.NAME]``) change threshold, severity and owner. What a load's files
must be like in any case (:mod:`mmlora.checks.scores`) is no rule: it can't be overridden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmlora.names import Severity, Stage


@dataclass(frozen=True)
class CheckRule:
    """A check.

    Attributes:
        name: in settings, messages, the ledger and ``--override``.
        stage: what it checks: ``interactions``, ``features``, ``candidates`` or ``scores``.
        meaning: what the figure is, and what the check protects from.
        threshold: the largest figure that passes, or the least one if ``least``.
        severity: what a failure does: ``block`` or ``warn``.
        owner: who is asked if it fails.
        least: whether the threshold is a lower bound.
        setting: a setting of its own that holds the threshold by default; empty for none.
    """

    name: str
    stage: Stage
    meaning: str
    threshold: float
    severity: Severity = "block"
    owner: str = "data"
    least: bool = False
    setting: str = ""

    def passes(self, figure: float | None) -> bool:
        """Return whether a figure passes; None passes, because there is nothing to compare; NaN fails."""
        if figure is None:
            return True
        return figure >= self.threshold if self.least else figure <= self.threshold

    @property
    def limit(self) -> str:
        """The threshold in words."""
        return f"at {'least' if self.least else 'most'} {self.threshold:g}"

    def measured(self, figure: float | None, detail: str, *, severity: Severity | None = None) -> AuditCheck:
        """Return the outcome for a figure, with figure and threshold after the detail."""
        shown = "" if figure is None else f" ({figure:.3g}; {self.limit})"
        return self.outcome(figure, f"{detail}{shown}", severity=severity)

    def outcome(self, figure: float | None, detail: str, *, severity: Severity | None = None) -> AuditCheck:
        """Return the outcome for a figure; ``severity`` replaces the rule's own."""
        return AuditCheck(
            self.name,
            self.passes(figure),
            detail,
            severity or self.severity,
            figure,
            self.threshold,
            self.owner,
        )


@dataclass(frozen=True)
class AuditCheck:
    """A check's outcome, as it is stored with the load or the verdict.

    Attributes:
        name: the check.
        passed: whether it passed.
        detail: the figures that it used, in a clause.
        severity: what a failure does: ``block`` or ``warn``.
        figure: the figure that was compared; None if there was nothing to compare, or no single figure.
        threshold: what it was compared with.
        owner: who is asked if it fails.
    """

    name: str
    passed: bool
    detail: str
    severity: Severity = "block"
    figure: float | None = None
    threshold: float | None = None
    owner: str = "mmlora"

    @property
    def blocks(self) -> bool:
        """Whether it failed and keeps the domain from being published."""
        return not self.passed and self.severity == "block"

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


_ROW_FAULTS = {
    "wrong_type": "rows in files with a column of another type",
    "null_user_id": "rows without user_id",
    "null_item_id": "rows without item_id",
    "null_domain_id": "rows without domain_id",
    "null_event_timestamp": "rows without event_timestamp",
    "null_known_at": "rows without known_at",
    "null_label": "rows without label",
    "label_not_0_or_1": "rows with a label other than 0 and 1",
    "time_out_of_range": "rows with an event_timestamp before 1970-01-02 or more than an hour after known_at",
    "wrong_day_folder": "rows in the folder of another day",
    "duplicate_keys": "rows that repeat another row's key",
}

_INTERACTIONS = (
    *(CheckRule(name, "interactions", meaning, 0) for name, meaning in _ROW_FAULTS.items()),
    CheckRule(
        "label_rate_low",
        "interactions",
        "label rate of the window, plus what chance explains: no positives arrive",
        0.001,
        least=True,
        setting="ctr_min",
    ),
    CheckRule(
        "label_rate_high",
        "interactions",
        "label rate of the window, less what chance explains: negatives are missing",
        0.95,
        setting="ctr_max",
    ),
    CheckRule(
        "volume_high",
        "interactions",
        "rows of the last day over those of a mean day: rows are repeated, or a bot is at work",
        50.0,
        setting="volume_max_ratio",
    ),
    CheckRule(
        "volume_low",
        "interactions",
        "rows of the last day over those of a mean day, plus what chance explains: rows are missing",
        0.25,
        least=True,
        setting="volume_min_ratio",
    ),
    CheckRule(
        "silence",
        "interactions",
        "chance of this many days without rows at the end, given the days before: a delivery is missing",
        0.00135,
        least=True,
    ),
    CheckRule(
        "quiet_day",
        "interactions",
        "rows of the last day, plus what chance explains, over those of the quietest day of the window: "
        "a part of the delivery is missing",
        0.8,
        least=True,
    ),
    CheckRule(
        "busy_day",
        "interactions",
        "rows of the last day, less what chance explains, over those of the busiest day of the window",
        1.5,
        severity="warn",
    ),
    CheckRule(
        "label_rate_change",
        "interactions",
        "label rate of the last day over that of the days before, or the inverse, beyond chance: labels "
        "are flipped, or clicks are missing",
        2.5,
    ),
    CheckRule(
        "label_rate_change_all",
        "interactions",
        "label rate of the last day in all domains together over that of the days before, or the inverse, "
        "beyond chance, but no more than the domain's own: clicks of all domains are missing",
        2,
    ),
    CheckRule(
        "missing_hours",
        "interactions",
        "share of a usual day's rows in the hours without any on the last day: half a day was delivered, "
        "or its times are in another time zone",
        0.01,
    ),
    CheckRule(
        "busiest_user",
        "interactions",
        "rows of the last day's busiest user, less what chance explains, over those of any user on one of "
        "the seven days before: a bot, or a default id",
        5.0,
    ),
    CheckRule(
        "repeated_pairs",
        "interactions",
        "share of the last day's rows that repeat a user and item of that day or the day before, above that "
        "of the seven days before, beyond chance: rows are logged twice, or a day is delivered again",
        0.1,
    ),
    CheckRule(
        "new_users",
        "interactions",
        "share of the last day's rows of users new to the domain, above that of the seven days before, "
        "beyond chance: user ids are swapped or written in another way",
        0.2,
    ),
    CheckRule(
        "new_items",
        "interactions",
        "share of the last day's rows of items new to the domain, above that of the seven days before, "
        "beyond chance: item ids are swapped or written in another way",
        0.2,
    ),
    CheckRule(
        "late_share",
        "interactions",
        "share of earlier days' rows among those that became known on the last day: a day was late",
        0.2,
        severity="warn",
    ),
)

_CANDIDATES = (
    CheckRule(
        "size",
        "candidates",
        "users, and rows with the same top_k, over those of the newest published night up to the date: a "
        "wrong pair table, or half of the data",
        0.5,
        owner="candidates",
        least=True,
        setting="min_size_ratio",
    ),
    CheckRule(
        "candidate_items",
        "candidates",
        "items over those of the last published night: the catalogue or the stock is cut",
        0.5,
        owner="candidates",
        least=True,
    ),
    CheckRule(
        "active_users",
        "candidates",
        "users with candidates over users with a row in the window: active users get no list",
        0.5,
        severity="warn",
        owner="candidates",
        least=True,
    ),
)

_FEATURES = (
    CheckRule(
        "feature_age",
        "features",
        "hours from the newest row of the computed views to the night: features are stale",
        12.0,
        owner="features",
    ),
    CheckRule(
        "feature_missing",
        "features",
        "share of rows without a value, above that of the training date, in the worst field: a column is "
        "gone, or rows are past their ttl",
        0.2,
        owner="features",
    ),
    CheckRule(
        "feature_unknown",
        "features",
        "share of values out of vocabulary, above that of the training date, in the worst field but the ids: "
        "categories are written in another way, or the vocabulary is empty",
        0.5,
        owner="features",
    ),
    CheckRule(
        "feature_range",
        "features",
        "share of numbers further outside the training date's range than its width, in the worst field "
        "that isn't computed from interactions: another unit",
        0.05,
        owner="features",
    ),
    CheckRule(
        "feature_shift",
        "features",
        "PSI against the training date, beyond chance, of the worst field that isn't computed from "
        "interactions",
        1.0,
        owner="features",
    ),
    CheckRule(
        "vector_change",
        "features",
        "how much the vectors of the same users or items changed since the training date, in the worst "
        "field, from 0 (not at all) to 1 (as different as those of others): they were computed anew, or "
        "given to others",
        0.5,
        owner="features",
    ),
)

_SCORES = (
    CheckRule(
        "near_constant",
        "scores",
        "spread of the lists' scores (90% quantile less 10% quantile) over their median: a model that "
        "hardly tells items apart",
        0.01,
        owner="model",
        least=True,
    ),
    CheckRule(
        "score_shift",
        "scores",
        "PSI of the scores of the same users' lists against the last published night, beyond chance",
        0.5,
        owner="model",
    ),
    CheckRule(
        "rank_overlap",
        "scores",
        "share of the same users' first 10 items that they had in the last published night, plus what "
        "chance explains",
        0.1,
        owner="model",
        least=True,
    ),
    CheckRule(
        "mean_score",
        "scores",
        "scores of the pairs shown last over their clicks, or the inverse, beyond chance: scores no longer "
        "match click rates",
        2.0,
        owner="model",
    ),
    CheckRule(
        "recent_auc",
        "scores",
        "how far the auc on the pairs shown last is below that of the model's test, beyond chance: the "
        "model doesn't recognise its features, users or items",
        0.05,
        owner="model",
    ),
    CheckRule(
        "test_auc",
        "scores",
        "auc of the model's test, less what chance explains: one that is too good to be true has seen the "
        "labels",
        0.97,
        owner="model",
    ),
)

RULES: tuple[CheckRule, ...] = (*_INTERACTIONS, *_FEATURES, *_CANDIDATES, *_SCORES)

RULE_NAMES: tuple[str, ...] = tuple(rule.name for rule in RULES)


def rules_in_force(
    limits: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, CheckRule]:
    """Return the rules by name, with the settings applied.

    Args:
        limits: values of the settings that hold thresholds, by name; others are ignored.
        changes: by rule, its new ``threshold``, ``severity`` or ``owner``; these win.
    """
    changes = changes or {}
    found = {}
    for rule in RULES:
        change = {"threshold": float(limits.get(rule.setting, rule.threshold)), **changes.get(rule.name, {})}
        found[rule.name] = replace(rule, **change)
    return found
