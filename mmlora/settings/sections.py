"""The sections of the settings: a class for each header of ``mmlora.toml``."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mmlora.check_rules import RULE_NAMES
from mmlora.hyperparameters import SETTINGS, Hyperparameters, as_kept, read_by
from mmlora.hyperparameters.setting import declared
from mmlora.names import (
    ColumnKind,
    Device,
    EngineName,
    Exclusion,
    LogFormat,
    LogLevel,
    Precision,
    RetrievalName,
    Scope,
    Severity,
    valid_names,
)
from mmlora.schedules import cron_of


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureSettings(_Section):
    """Activity features."""

    prior_ctr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="CTR of an entity without rows; the overall CTR of the first build when unset",
    )
    prior_weight: float = Field(20.0, gt=0, description="weight of the prior in rows")
    columns: dict[str, str] = Field(
        {}, description='what profile columns become, e.g. { "items.price" = "dense" }'
    )

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        """Reject unknown tables and kinds; whether a column can become the kind is checked with its data."""
        kinds, tables = valid_names(ColumnKind), ("users", "items", "domains")
        faults = [
            f'"{name}" = "{kind}" is not understood: write "TABLE.COLUMN" = "KIND" with a table of '
            f"{', '.join(tables)} and a kind of {', '.join(kinds)}"
            for name, kind in columns.items()
            if kind not in kinds or name.partition(".")[0] not in tables or not name.partition(".")[2]
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return columns


class RuleSettings(_Section):
    """What is changed of a check's rule."""

    threshold: float | None = Field(None, description="the highest or lowest figure that passes")
    severity: Severity | None = Field(None, description="`block` publication, or `warn`")
    owner: str | None = Field(None, min_length=1, description="who is asked if it fails")


class CheckSettings(_Section):
    """Thresholds of the checks."""

    window_days: int = Field(30, ge=1, description="length in days of the window that is checked")
    rich_min_rows: int = Field(500, description="rows in the window below which a domain is `thin`")
    rich_min_positives: int = Field(50, description="clicks in the window below which a domain is `thin`")
    rich_min_users: int = Field(10, description="users in the window below which a domain is `thin`")
    rich_min_items: int = Field(20, description="items in the window below which a domain is `thin`")
    min_density: float = Field(
        0.0, ge=0, le=1, description="rows / (users x items) below which a domain is `thin`"
    )
    ctr_min: float = Field(
        0.001, ge=0, le=1, description="a domain is `broken` if its label rate is below this beyond chance"
    )
    ctr_max: float = Field(
        0.95, ge=0, le=1, description="a domain is `broken` if its label rate is above this beyond chance"
    )
    volume_min_ratio: float = Field(
        0.25,
        ge=0,
        description="minimum rows of the last day over the trailing mean, beyond chance; 0: no check",
    )
    volume_max_ratio: float = Field(
        50.0, gt=0, description="maximum rows of the last day over the trailing mean"
    )
    volume_min_mean: float = Field(
        100.0, gt=0, description="rows per day that a quieter domain counts as, against `volume_max_ratio`"
    )
    domains: tuple[str, ...] = Field((), description="expected domains in addition to those ever seen")
    empty_days: tuple[date, ...] = Field(
        (), description="days that may have few rows or none", examples=[["2026-12-25"]]
    )
    rules: dict[str, RuleSettings] = Field(
        {}, description="by check, e.g. { score_shift = { threshold = 1.0 } }; or [checks.rules.NAME]"
    )

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: dict[str, RuleSettings]) -> dict[str, RuleSettings]:
        """Reject rules of checks that do not exist."""
        if unknown := sorted(set(rules).difference(RULE_NAMES)):
            raise ValueError(
                f"there is no check {', '.join(map(repr, unknown))}: valid are {', '.join(RULE_NAMES)}"
            )
        return rules

    def changes(self) -> dict[str, dict[str, Any]]:
        """Return what is changed of each rule, by check."""
        return {name: rule.model_dump(exclude_none=True) for name, rule in self.rules.items()}


class TrainingSettings(_Section, Hyperparameters):
    """Model and optimisation; an option of `mmlora train` with the same name overrides a setting."""

    schedule: str = Field(
        "nightly",
        description="when the training DAG runs: `nightly`, `weekly`, `never`, or a cron expression in UTC",
    )

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, schedule: str) -> str:
        """Reject what is no schedule."""
        cron_of(schedule)
        return schedule

    @field_validator("start")
    @classmethod
    def _check_start(cls, start: str) -> str:
        """Reject what is neither cold, warm nor a model version."""
        if fault := SETTINGS["start"].fault(start):
            raise ValueError(fault)
        return start

    def of(self, declaration: type) -> dict[str, Any]:
        """Return the settings of a declaration, by name."""
        return {name: getattr(self, name) for name in declared(declaration)}

    def as_kept(self, *, only: Collection[str] = ()) -> dict[str, object]:
        """Return the settings, or some of them, in the JSON form of keys and records.

        Settings of the machine are left out, because they affect only the last bits of a model.
        """
        names = set(only or SETTINGS).difference(read_by("machine"))
        return as_kept(self.model_dump(mode="json", include=names))


class CandidatePolicy(_Section):
    """The users and items to score, in all domains or in one."""

    items: Scope = Field("all", description="all known items, or those seen in the `domain`")
    available: str | tuple[str, str] | None = Field(
        None,
        description="a true/false column of the item profile, or two: from, until",
        examples=["in_stock"],
    )
    stock: str | None = Field(
        None, description="a table of item_id, domain_id, from, until", examples=["stock/{date}.parquet"]
    )
    exclude: Exclusion = Field("clicked", description="pairs to leave out: `none`, `clicked`, `seen`")
    exclude_days: int = Field(30, ge=0, description="days back for which pairs are left out; 0: no limit")
    exclude_in: Scope = Field("domain", description="pairs in the same `domain`, or in `all`")
    users: str = Field(
        "active", min_length=1, description="`active`, `all`, or a table of user_id, domain_id"
    )
    active_days: int = Field(30, ge=1, description="a user with a row in the domain in these days is active")
    pairs: str | None = Field(
        None,
        description="a table of user_id, item_id, domain_id that replaces all of the above",
        examples=["pairs/{date}.parquet"],
    )
    retrieval: RetrievalName = Field("none", description="preselects items for the full model")
    retrieval_items: int = Field(1000, ge=0, description="items preselected per user; 0 keeps all")

    @field_validator("available", "stock", "pairs")
    @classmethod
    def _unset(cls, value: str | tuple[str, str] | None) -> str | tuple[str, str] | None:
        """Convert an empty text to None, so that a domain can unset a general setting."""
        return value or None

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        """Reject settings of the same section that have no effect with a pair table."""
        void = sorted(self.model_fields_set - {"pairs", "domains"})
        if self.pairs is not None and void:
            raise ValueError(f"pairs alone decides what is scored: leave {', '.join(void)} out")
        return self


class CandidateSettings(CandidatePolicy):
    """Candidates; a domain's own section overrides the settings that it has."""

    domains: dict[str, CandidatePolicy] = Field(
        {}, description="by domain, e.g. { us = { exclude = 'none' } }; or sections [candidates.domains.us]"
    )

    def of(self, domain: str) -> dict[str, Any]:
        """Return a domain's policy; a domain's own section replaces a general pair table."""
        parts = self.model_dump(exclude={"domains"})
        if domain in self.domains:
            policy = self.domains[domain]
            changes = {name: getattr(policy, name) for name in policy.model_fields_set}
            parts |= {"pairs": None, **changes} if changes else {}
        return parts


class ScoringSettings(_Section):
    """Scoring of nights, and limits on the age of their data."""

    top_k: int = Field(100, ge=0, description="rows kept per user; 0 keeps all")
    block_rows: int = Field(16384, ge=256, description="pairs per fixed block; stored in the bundle")
    engine: EngineName = Field("local", description="`ray` scores on a Ray cluster's CPUs")
    ray_address: str = Field(
        "", description="address for ray.init; RAY_ADDRESS or a local cluster when empty"
    )
    device: Device = Field(
        "auto", description="device of the engine `local`; `auto` uses a GPU if there is one"
    )
    precision: Precision = Field(
        "float32",
        description="precision per pair: `bfloat16` is faster, but not for AutoInt with few fields",
    )
    memory_mb: int = Field(128, ge=1, description="approximate memory for users, pairs and rows held at once")
    ray_threads: int = Field(1, ge=1, description="CPUs per Ray worker, which share the items' tensors")
    carry_over: bool = Field(
        True, description="take rows from the last published night where nothing has changed for a user"
    )
    batch_pairs: int = Field(
        20_000_000,
        ge=1,
        description="pairs that one Airflow task scores, of several domains where they are small",
    )
    max_days_ahead: int = Field(1, ge=0, description="days after the data's last one that may be scored")
    max_age_hours: float = Field(
        24.0, gt=0, description="maximum age of the newest interaction at a night's 00:00 UTC"
    )
    min_size_ratio: float = Field(
        0.5, ge=0, le=1, description="minimum rows and users of a load over those of the last published night"
    )
    heartbeat_seconds: float = Field(10.0, gt=0, description="how often a running load sends a heartbeat")
    stale_after_seconds: float = Field(
        120.0, gt=0, description="a load without a heartbeat for this long is given up"
    )


class RetentionSettings(_Section):
    """What `mmlora gc` keeps; its options override these settings."""

    nights_days: int | None = Field(
        None,
        ge=0,
        description="days before the newest night for which nights are kept; all when unset",
        examples=[400],
    )
    loads: int = Field(1, ge=0, description="earlier published loads kept per domain and date, to restore")
    files_days: int = Field(
        30,
        ge=1,
        description="days for which unused models, training runs, training sets and pages, and shadow loads, "
        "are kept",
    )


class Promise(_Section):
    """What the readers of a domain are promised."""

    max_age_days: int = Field(
        2, ge=0, description="scores of a date more than this many days ago (UTC) are stale: `is_stale`"
    )
    top_k: int = Field(20, ge=1, description="positions per user in the view scores_topk")


class PromiseSettings(Promise):
    """Promises; a section of a domain's own wins in what it sets."""

    domains: dict[str, Promise] = Field(
        {}, description="by domain, e.g. { us = { max_age_days = 1 } }; or sections [promises.domains.us]"
    )

    def of(self, domain: str) -> dict[str, int]:
        """Return a domain's promise."""
        own = self.domains.get(domain, Promise())
        parts = {name: getattr(self, name) for name in Promise.model_fields}
        return {**parts, **own.model_dump(exclude_unset=True)}


class QualitySettings(_Section):
    """The limits beyond which `mmlora evaluate` reports a published night."""

    min_clicks: int = Field(
        50, ge=1, description="nights with fewer clicks on published pairs are not judged"
    )
    min_auc: float = Field(0.5, ge=0, le=1, description="lowest auc of a night's published scores")
    max_miscalibration: float = Field(
        2.0, gt=1, description="scores may sum to at most this many times the clicks, and at least 1 / this"
    )


class PromotionSettings(_Section):
    """When the training DAG, or `mmlora promote --by-policy`, makes a challenger the champion."""

    margin: float = Field(
        0.002, ge=0, lt=1, description="how far below the champion's auc it may be in a domain that matters"
    )
    min_rows: int = Field(
        1000, ge=1, description="domains with fewer rows that neither model has seen do not matter"
    )
    scope: Scope = Field(
        "all", description="`domain` promotes it in the domains where it is better, if it is worse elsewhere"
    )
    approval: bool = Field(False, description="the training DAG waits until a person approves the promotion")


class AlertSettings(_Section):
    """Who is told when a DAG's run fails, or when the nightly run is late."""

    webhook: str = Field("", repr=False, description="URL that gets a POST with JSON; none when empty")
    email: list[str] = Field([], description="addresses, written to by Airflow's email settings")
    deadline_minutes: int = Field(
        240, ge=0, description="tell them if nightly_scoring isn't done so long after its start; 0: never"
    )


class AirflowSettings(_Section):
    """The tasks of the DAGs."""

    pool: str = Field(
        "default_pool", min_length=1, description="Airflow's pool in which the tasks run, which has to exist"
    )
    task_timeout_hours: float = Field(
        24.0, ge=0, description="a task that runs longer fails, and isn't retried; 0: no limit"
    )


class LoggingSettings(_Section):
    """The command line's log lines, on standard error."""

    format: LogFormat = Field("text", description="`json` writes each line as an object, for log collectors")
    level: LogLevel = Field("warning", description="the least severe level that is logged")
