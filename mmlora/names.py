"""The closed vocabularies, in a module without imports for the command line and DAG files."""

from __future__ import annotations

from typing import Literal, get_args

FeatureGroup = Literal["ids", "profiles", "all"]
FieldKind = Literal["categorical", "dense", "vector", "bag", "weights", "history", "counts"]
ColumnKind = Literal["categorical", "dense", "log", "days_since", "bag", "words", "vector", "drop"]
NetworkName = Literal["wdl", "nfm", "autoint", "pnn", "opnn", "deepfm", "dcn", "dcn_v2", "xdeepfm", "fibinet"]
BackboneName = Literal[NetworkName, "gbdt"]
Adaptation = Literal["none", "mlora", "moe_mlora"]
GateInput = Literal["domain", "sample", "both"]
RuleSplit = Literal["random", "user", "time"]
SplitName = Literal[RuleSplit, "file"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
EngineName = Literal["local", "ray"]
Scope = Literal["all", "domain"]
Exclusion = Literal["none", "clicked", "seen"]
RetrievalName = Literal["none", "two_tower", "popularity"]
ExpertPolicy = Literal["own", "shared", "backbone"]
Verdict = Literal["rich", "thin", "absent", "broken"]
LoadState = Literal["running", "staged", "published", "superseded", "failed", "rejected"]
BackfillState = Literal["missing", "stale", "late", "failed", "all"]
KnownAsOf = Literal["then", "now"]
LedgerAction = Literal["unpublish", "restore", "override"]
Severity = Literal["block", "warn"]
Stage = Literal["interactions", "features", "candidates", "scores"]
Alias = Literal["champion", "challenger"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


def valid_names(literal: object) -> tuple[str, ...]:
    """Return the members of a ``Literal``, for messages and command-line choices."""
    return get_args(literal)
