"""What an alert says of a night or a backfill: what isn't published, why, and the command to run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlora.schema import Id
    from mmlora.workspace import Workspace

from mmlora.airflow_plugin import forms

Missing = dict[str, str | None]
"""``domain``, ``reason``, ``load`` (the newest one, if there is any), and of a backfill also ``date``."""
_LINES = 20
"""How many are listed in an alert's text."""


def of_night(on: date, form: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return facts and lines about the domains without published scores of a date.

    Args:
        on: the date.
        form: what the form of the run was filled in with.
    """
    given = _in_order(forms.NIGHTLY_SCORING, form, but=("date", "domains"))

    def command(domains: Sequence[str]) -> str:
        return shlex.join(["mmlora", "score", *_options({"date": str(on), "domain": domains, **given})])

    return _told("domains", lambda: _missing_domains(on), command)


def of_backfill(form: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return facts and lines about the nights that a backfill would still score, or refuse.

    Args:
        form: what the form of the run was filled in with.
    """
    given, asked = _in_order(forms.BACKFILL, form, but=("domains",)), form.get("domains")

    def command(domains: Sequence[str]) -> str:
        named = domains or asked
        options = {"domain": named, "all_domains": not named, **given}
        if "plan_only" in options:
            options["plan"] = options.pop("plan_only")
        return shlex.join(["mmlora", "backfill", *_options(options)])

    return _told("nights", lambda: _missing_nights(asked, **given), command)


def _told(
    name: str, look: Callable[[], list[Missing]], command: Callable[[Sequence[str]], str]
) -> tuple[dict[str, Any], list[str]]:
    """Return what is missing as facts, under ``name``, and as lines."""
    from mmlora.redaction import redact

    try:
        missing = look()
    except (
        Exception
    ) as error:  # what made the run fail, a lost database say, must not keep this from being told
        unread = f"What is published can't be read: {redact(str(error))}"
        return {"command": command([])}, [unread, f"To score: {command([])}"]
    if not missing:
        return {name: []}, ["Everything is published."]
    again = command(list(dict.fromkeys(str(each["domain"]) for each in missing)))
    lines = [f"- {_line(each)}" for each in missing[:_LINES]]
    if len(missing) > _LINES:
        lines.append(f"- and {len(missing) - _LINES:,} more")
    lines.append("Their readers keep the scores that were published last.")
    lines.append(f"To score again, clear the failed tasks of the run, or: {again}")
    return {name: missing, "command": again}, lines


def _line(each: Missing) -> str:
    on = f", {each['date']}" if "date" in each else ""
    load = f" (load {each['load']})" if each["load"] else ""
    return f"{each['domain']}{on}: {each['reason']}{load}"


def _in_order(fields: Iterable[str], form: Mapping[str, Any], *, but: Collection[str]) -> dict[str, Any]:
    """Return the fields that were filled in, but for some: PostgreSQL keeps them in an order of its own."""
    return {name: form[name] for name in fields if name not in but and form.get(name) is not None}


def _options(given: Mapping[str, Any]) -> list[str]:
    """Return options of the command line; one with a list is repeated."""
    words = []
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is True:
                words.append(option)
            elif each is not False and each is not None:
                words += [option, str(each)]
    return words


def _missing_domains(on: date) -> list[Missing]:
    """Return the domains without published scores of a date, with the reason and the newest load."""
    from mmlora.pipeline.read import open_published
    from mmlora.settings import load_settings
    from mmlora.workspace import Workspace

    workspace = Workspace(load_settings())
    found: list[Missing] = []
    with open_published() as warehouse:
        published = {publication.domain_id for publication in warehouse.publications(start=on, end=on)}
        verdicts = {verdict.domain_id: verdict.verdict for verdict in warehouse.verdicts(on)}
        reasons = warehouse.failures(on)
        for domain in _expected(workspace):
            verdict = verdicts.get(domain)
            if domain not in published and verdict != "absent":
                load = next(iter(warehouse.loads(domain=domain, score_date=on, limit=1)), None)
                reason = reasons.get(domain) or ("its verdict is broken" if verdict == "broken" else None)
                if reason is None:
                    reason = "not scored" if load is None else f"its load is {load.state}"
                found.append(
                    {"domain": str(domain), "reason": reason, "load": None if load is None else load.load_id}
                )
    return found


def _expected(workspace: Workspace) -> list[Id]:
    """Return the domains to score; those of a shared workspace are read where it is, so nothing is pulled."""
    if not workspace.settings.shared_url:
        return workspace.expected_domains()
    seen = json.loads(workspace.stored("offline/domains.json") or "[]")
    return sorted({domain for domain, _ in seen}.union(workspace.settings.checks.domains), key=str)


def _missing_nights(domains: Sequence[str] | None, start: str, end: str, **options: Any) -> list[Missing]:
    """Return the nights that a plan made now doesn't keep, with the reason and the newest load."""
    from mmlora.dates import parse_date
    from mmlora.pipeline.backfill import backfill
    from mmlora.workspace import open_workspace, shared_workspace

    found: list[Missing] = []
    with shared_workspace():
        plan = backfill(domains, parse_date(start), parse_date(end), **{**options, "plan_only": True}).plan
        workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        for night in plan:
            if night.action != "keep":
                domain, on = workspace.domain(night.domain_id), night.score_date
                load = next(iter(warehouse.loads(domain=domain, score_date=on, limit=1)), None)
                found.append(
                    {
                        "domain": night.domain_id,
                        "date": str(on),
                        "reason": warehouse.failures(on).get(domain) or night.reason,
                        "load": None if load is None else load.load_id,
                    }
                )
    return found
