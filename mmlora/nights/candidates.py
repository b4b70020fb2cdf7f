"""A domain's candidates on a date: its policy, the tables that this names, the retrieval stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING

from mmlora.errors import DataError, Fault, UsageError
from mmlora.load_checks import Recall, Removed
from mmlora.nights.inputs import Data
from mmlora.schema import DOMAIN_ID, Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.candidates.pairs import Candidates
    from mmlora.candidates.policy import Policy
    from mmlora.candidates.report import Selection
    from mmlora.candidates.tables import Table
    from mmlora.scoring.work import Engine, Work

logger = logging.getLogger(__name__)

INPUTS, KNOWN_AS_OF = "inputs", "known_as_of"
"""What is stored beside a policy: the state of the data, and up to when it was known."""


def policy_of(workspace: Workspace, domain: Id, pairs: str | None = None) -> Policy:
    """Return a domain's policy: the general settings, overridden by the domain's own.

    Args:
        workspace: the workspace.
        domain: the domain.
        pairs: a pair table instead of the settings' candidates.

    Raises:
        UsageError: the settings name a domain that does not exist, or the policy is invalid.
    """
    from mmlora.candidates.policy import Policy

    section = workspace.settings.candidates
    known = [str(name) for name in workspace.expected_domains()]
    if strange := sorted(set(section.domains).difference(known)):
        raise UsageError(
            f"settings: candidates.domains.{strange[0]}: there is no such domain; the domains are "
            f"{', '.join(known)}; list a future domain in [checks] domains as well"
        )
    policy = Policy(**section.of(str(domain)))
    return policy if pairs is None else replace(policy, pairs=pairs)


def recorded_policy(
    workspace: Workspace,
    domain: Id,
    on: date,
    *,
    pairs: str | None = None,
    known_as_of: datetime | None = None,
) -> dict[str, object]:
    """Return what determines a load's candidates, as it is stored with the load.

    Beside the policy this is the state of the data (:mod:`mmlora.nights.inputs`).
    """
    parts = deciding_policy(workspace, domain, on, pairs)
    parts[INPUTS] = Data.of(workspace).inputs(on, known_as_of).to_json()
    return parts if known_as_of is None else {**parts, KNOWN_AS_OF: known_as_of.isoformat()}


def deciding_policy(
    workspace: Workspace, domain: Id, on: date, pairs: str | None = None
) -> dict[str, object]:
    """Return what determines a load's candidates besides the imported data."""
    from mmlora.candidates.tables import recorded

    return recorded(policy_of(workspace, domain, pairs), domain, on)


def choose(
    workspace: Workspace, policy: Policy, domain: Id, on: date, known_as_of: datetime | None
) -> Selection:
    """Find the candidates, before any retrieval."""
    from mmlora.candidates.find import find_candidates

    return find_candidates(
        workspace.offline, policy=policy, ids=workspace.ids, domain=domain, on=on, known_as_of=known_as_of
    )


def check_retrieval(policy: Policy, top_k: int) -> None:
    """Refuse a retrieval that keeps fewer items than ``top_k``.

    Raises:
        UsageError: the retrieval keeps too few items.
    """
    if policy.retrieval != "none" and policy.pairs is None and 0 < policy.retrieval_items < top_k:
        raise UsageError(
            f"candidates.retrieval_items is {policy.retrieval_items}, but {top_k} rows are kept per user: "
            "keep at least as many items, or lower top_k"
        )


def retrieve_best(
    selection: Selection, policy: Policy, work: Work, users: pa.Table, *, engine: Engine, threads: int | None
) -> tuple[Selection, Recall | None]:
    """Keep only each user's best items, if the policy has a retrieval and there are more items.

    Args:
        selection: the candidates.
        policy: the domain's policy.
        work: the full model and its inputs.
        users: the users' features, in the candidates' order.
        engine: scores a sample of users on all items, for the recall.
        threads: threads of the retrieval.

    Returns:
        The remaining candidates, and their recall of the full model's lists.
    """
    from mmlora.candidates.retrieval import popular, retrieve
    from mmlora.scoring.workers import workers

    every, keep = selection.candidates, policy.retrieval_items
    if policy.retrieval == "none" or every.listed or not 0 < keep < len(every.items):
        return selection, None
    with workers(threads) as run:
        if selection.popularity is not None:
            scores = popular(selection.popularity)
        else:
            scores = replace(work, precision="float32").scorer(users, run=run).cross_scores
        kept = retrieve(every, scores, keep, run=run)
    reason = f"not among a user's best {keep:,} by {policy.retrieval}"
    removed = Removed("pairs", reason, every.num_pairs - kept.num_pairs)
    left = replace(selection, candidates=kept, removed=(*selection.removed, removed))
    return left, _recall(every, kept, work, users, engine)


def _recall(every: Candidates, kept: Candidates, work: Work, users: pa.Table, engine: Engine) -> Recall:
    """Measure recall by scoring a sample of users on all their items with the full model."""
    import pyarrow as pa

    from mmlora.candidates.retrieval import RECALL_AT, recall, sampled_users
    from mmlora.schema import scores_schema

    rows = sampled_users(every)
    full, some = replace(work, top_k=RECALL_AT), users.take(pa.array(rows))
    lists = engine.tables(full, every.of_users(rows), some, lambda pairs: None, lambda by: None)
    return recall(kept, pa.concat_tables([scores_schema(work.ids).empty_table(), *lists]))


def without_pairs(
    workspace: Workspace, on: date, domains: Sequence[Id], pairs: str | None = None
) -> dict[Id, str]:
    """Return the domains without rows in their pair table, if it has a ``domain_id``, with the reason.

    Tables for a single domain (with ``{domain}`` in their name) and unreadable tables aren't checked: their
    domains fail individually when they are scored.

    Raises:
        DataError: the table ``pairs`` has an unknown domain.
    """
    named: dict[str, set[Id] | None] = {}
    without: dict[Id, str] = {}
    for domain in domains:
        template = policy_of(workspace, domain, pairs).pairs
        if template is None or "{domain}" in template:
            continue
        if template not in named:
            named[template] = _domains_of(workspace, template, on, strict=pairs is not None)
        given = named[template]
        if given is not None and domain not in given:
            without[domain] = f"no rows in {_table(template, domain, on)}"
    return without


def _domains_of(workspace: Workspace, template: str, on: date, *, strict: bool) -> set[Id] | None:
    """Return the domains in a pair table; None if it has no domain column, or can't be read."""
    from mmlora.candidates.pair_table import pair_domains

    table, known = _table(template, "", on), set(workspace.expected_domains())
    try:
        given = pair_domains(table, ids=workspace.ids)
    except DataError:
        return None
    if strange := sorted(map(str, (given or set()) - known)):
        names = ", ".join(sorted(map(str, known)))
        fault = Fault(f"{strange[0]!r} is not a domain; the domains are {names}", DOMAIN_ID)
        if strict:
            raise DataError(str(table), [fault])
        logger.warning("%s: %s", table, fault)
    return given


def _table(template: str, domain: Id, on: date) -> Table:
    from mmlora.candidates.tables import Table

    return Table("pairs", template, domain, on)
