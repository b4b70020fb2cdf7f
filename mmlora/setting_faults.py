"""Sentences for the settings that pydantic refuses."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from mmlora.redaction import redact

_MOVED = {("scoring", "active_days"): "candidates.active_days"}


def faults_of(error: ValidationError, *, depth: int = 1) -> list[str]:
    """Return the faults of each setting; one that accepts several types has a fault for each type.

    A value is shown only if its setting can't hold a secret. An unknown name may be a misspelt URL, and
    settings outside of the sections are URLs, so their values are hidden.

    Args:
        error: pydantic's error.
        depth: number of parts of a setting's name; pydantic adds further parts.
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for fault in error.errors():
        extra = 2 if fault["loc"][1:2] in (("domains",), ("rules",)) else 0  # a section of its own
        name = ".".join(map(str, fault["loc"][: depth + extra]))
        hidden = fault["type"] == "extra_forbidden" or len(fault["loc"]) < depth
        shown = "" if hidden else f" (got {redact(repr(fault['input']))})"
        msg = fault["msg"].removeprefix("Value error, ")  # how pydantic begins what a validator says
        why = "there is no such setting" if fault["type"] == "extra_forbidden" else msg
        reasons.setdefault((name, shown), []).append(why)
    return [
        f"{name}{': ' if name else ''}{'; or: '.join(why)}{shown}" for (name, shown), why in reasons.items()
    ]


def misplaced(error: ValidationError, settings: type[BaseModel]) -> list[str]:
    """Return where each of the ``settings`` that was given outside of all sections belongs."""
    outside = [
        str(f["loc"][0]) for f in error.errors() if f["type"] == "extra_forbidden" and len(f["loc"]) == 1
    ]
    sections = {
        name: field.annotation.model_fields
        for name, field in settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    headers = {
        name: [f"[{section}]" for section, fields in sections.items() if name in fields] for name in outside
    }
    return [
        f"{name} belongs under {' or '.join(names)}: write that header on a line before it"
        for name, names in headers.items()
        if names
    ]


def moved(error: ValidationError) -> list[str]:
    """Return the new names of settings that were renamed."""
    return [
        f"{'.'.join(f['loc'])} is now called {_MOVED[f['loc']]}" for f in error.errors() if f["loc"] in _MOVED
    ]
