"""The Params of the DAGs: the fields of the trigger form in Airflow's UI.

Null always means "as in the settings", so a scheduled run needs no values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_origin

from airflow.sdk import Param

from mmlora.check_rules import RULE_NAMES
from mmlora.hyperparameters import OFFERED, SETTINGS
from mmlora.hyperparameters.setting import Bounds, Declared
from mmlora.names import BackfillState, KnownAsOf, valid_names

_UNSET = "Left empty: as in the settings."


def _date(what: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        format="date",
        title="Date",
        description=f"{what} Left empty: the day (UTC) on which the run's data interval ends.",
    )


def _choice(
    title: str, values: Sequence[str], description: str, *, unset: str = "as in the settings"
) -> Param:
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *values],
        values_display={"null": unset},
        title=title,
        description=description,
    )


def _number(title: str, description: str, *, kind: str = "integer", **limits: float) -> Param:
    return Param(None, type=["null", kind], title=title, description=description, **limits)


def _text(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], title=title, description=description)


def _setting(one: Declared) -> Param:
    """Return the field of a training setting."""
    title, text = one.name.replace("_", " ").capitalize(), one.setting.sentence
    if get_origin(one.plain) is Literal:
        # A form can't supply a file of splits.
        return _choice(title, [name for name in valid_names(one.plain) if name != "file"], text)
    if one.plain is bool:
        return Param(
            None,
            type=["null", "boolean"],
            title=title,
            description=f"{text} Left alone: as in the settings.",
        )
    if one.plain is str:
        return Param(
            None,
            type=["null", "string"],
            pattern=f"^({one.setting.pattern})$",
            title=title,
            description=f"{text} {_UNSET}",
        )
    bounds = one.bounds or Bounds()
    limits = {"minimum": bounds.ge, "exclusiveMinimum": bounds.gt, "exclusiveMaximum": bounds.lt}
    kind = "integer" if one.plain is int else "number"
    return _number(
        title, f"{text} {_UNSET}", kind=kind, **{k: limit for k, limit in limits.items() if limit is not None}
    )


TRAINING = {
    "date": _date("Train on what was known on this day at 00:00 UTC."),
    **{name: _setting(SETTINGS[name]) for name in OFFERED if name != "split_file"},
    "domain": _text("Domain", "Train this domain's experts only. Left empty: those of all rich domains."),
    "base": _text(
        "Base",
        "With a domain: the model version, or champion, on which only this domain's experts are retrained. "
        "Left empty: a whole model.",
    ),
    "accept_below_baseline": Param(
        None,
        type=["null", "boolean"],
        title="Accept below baseline",
        description="Make the model the challenger even if it is below its best baseline. Left alone: no.",
    ),
    "tune_minutes": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Tune",
        description="Minutes to spend on trying other settings on validation rows. Left empty: none.",
    ),
}
"""The form of ``training``."""

CHOICES = tuple(TRAINING.keys() - {"date", "accept_below_baseline", "tune_minutes"})
"""The names of ``TRAINING`` that are options of ``prepare``."""

_OVERRIDE = {
    "override": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "enum": list(RULE_NAMES)},
        examples=list(RULE_NAMES),
        title="Override",
        description="Checks to override for this run. Left empty: none.",
    ),
    "reason": _text("Reason", "Why the check is overridden; recorded in the ledger."),
}

NIGHTLY_SCORING = {
    "date": _date("Score for this day, using what was known at 00:00 UTC of that day."),
    "domains": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Domains",
        description="Score only these, one per line. Left empty: all.",
    ),
    "top_k": _number("Top k", f"Rows kept per user; 0 keeps all. {_UNSET}", minimum=0),
    "allow_stale": Param(
        None,
        type=["null", "boolean"],
        title="Allow stale",
        description="Score even a day that the data doesn't reach. Left alone: no.",
    ),
    **_OVERRIDE,
}
"""The form of ``nightly_scoring``."""


def _flag(title: str, description: str) -> Param:
    return Param(None, type=["null", "boolean"], title=title, description=f"{description} Left alone: no.")


def _day(title: str, description: str, *, required: bool = False) -> Param:
    kind = "string" if required else ["null", "string"]
    given = {} if required else {"default": None}
    return Param(**given, type=kind, format="date", title=title, description=description)


_DOMAINS = Param(
    None,
    type=["null", "array"],
    items={"type": "string"},
    title="Domains",
    description="Only these, one per line. Left empty: all.",
)
_MAX_ROWS = _number(
    "Max rows", "Stop before the estimated rows exceed this. Left empty: no limit.", minimum=1
)

BACKFILL = {
    "start": _day("Start", "The first score date.", required=True),
    "end": _day("End", "The last score date.", required=True),
    "domains": _DOMAINS,
    "state": _choice(
        "State",
        valid_names(BackfillState),
        "Only nights that are in this state; late: see the docs.",
        unset="all",
    ),
    "model": _text("Model", "champion, champion-at-the-time, or a version. Left empty: champion."),
    "known_as_of": _choice(
        "Known as of",
        valid_names(KnownAsOf),
        "What was known then, or all that is known now, late rows too.",
        unset="then",
    ),
    "top_k": _number("Top k", f"Rows kept per user; 0 keeps all. {_UNSET}", minimum=0),
    "max_rows": _MAX_ROWS,
    "allow_stale": _flag("Allow stale", "Score even days that the data doesn't reach."),
    **_OVERRIDE,
    "plan_only": _flag("Plan only", "Log each domain's plan and score nothing."),
}
"""The form of ``backfill``."""

BACKFILL_OPTIONS = tuple(BACKFILL.keys() - {"start", "end", "domains"})
"""The names of ``BACKFILL`` that are options of ``backfill``."""

MAINTENANCE = {
    "date": _date("Share experts by what was known on this day at 00:00 UTC."),
    "start": _day("Start", "Evaluate the nights from this date on. Left empty: all that are published."),
    "late_days": _number(
        "Late days",
        "Restate nights of this many past days that late rows would change, each by the model that published "
        "it. Left empty: none.",
        minimum=0,
    ),
    "max_rows": _MAX_ROWS,
    "dry_run": _flag("Dry run", "Free nothing, and report what would be freed."),
}
"""The form of ``maintenance``."""

PROMOTION = {
    "action": Param(
        type="string",
        enum=["promote", "rollback"],
        title="Action",
        description="What is done to the champion.",
    ),
    "model_version": _text("Model version", "The model to promote. Left empty for a rollback."),
    "domain": _text("Domain", "Of this domain only. Left empty: of all domains."),
    "why": _text("Reason", "Stored with the decision."),
    "accept_below_baseline": _flag(
        "Accept below baseline", "Promote it even if it is below its best baseline."
    ),
    "accept_worse": _flag("Accept worse", "Promote it even if it is worse than the champion."),
}
"""The form of ``promotion``."""

SCORE_OPTIONS = tuple(NIGHTLY_SCORING.keys() - {"date", "domains"})
"""The names of ``NIGHTLY_SCORING`` that are options of ``score``."""
