"""The feature profile of a bundle: what a night of the training date would have read, by domain."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from mmlora.errors import MmloraError
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, TIMESTAMP, USER_ID, Id, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.checks.feature_profile import FieldProfile
    from mmlora.encoding import Encoder

logger = logging.getLogger(__name__)


def put_profile(workspace: Workspace, encoder: Encoder, on: date, domains: Sequence[Id]) -> str:
    """Describe the features of each domain's candidates as of a date, and store this as a part.

    A domain whose candidates can't be read for that date (a table of its policy is missing, say) is left out.
    """
    from mmlora.checks.feature_profile import describe

    ids = [(domain, *sides) for domain in domains if (sides := _candidates(workspace, domain, on))]
    profile: dict[str, dict[str, Any]] = {str(domain): {} for domain, _, _ in ids}
    for key, side in ((USER_ID, 1), (ITEM_ID, 2)):
        wanted = [(row[0], row[side]) for row in ids]
        for (domain, entities), table in zip(
            wanted, _features(workspace, encoder, on, key, wanted), strict=True
        ):
            fields: dict[str, FieldProfile] = describe(encoder, entities, table)
            profile[str(domain)] |= {name: field.to_json() for name, field in fields.items()}
    return workspace.parts.put_json({"domains": profile})


def _candidates(workspace: Workspace, domain: Id, on: date) -> tuple[pa.Array, pa.Array] | None:
    """Return a sample of the users and of the items that a night would score."""
    import pyarrow as pa

    from mmlora.candidates.find import find_candidates
    from mmlora.candidates.policy import Policy
    from mmlora.checks.feature_profile import sample

    policy = Policy(**workspace.settings.candidates.of(str(domain)))
    try:
        found = find_candidates(
            workspace.offline, policy=policy, ids=workspace.ids, domain=domain, on=on
        ).candidates
    except MmloraError as error:
        logger.warning("domain %s has no feature profile as of %s: %s", domain, on, error)
        return None
    users, items = (
        sample(pa.table({"id": ids}))["id"].combine_chunks() for ids in (found.users, found.items)
    )
    return (users, items) if len(users) and len(items) else None


def _features(
    workspace: Workspace, encoder: Encoder, on: date, key: str, wanted: Sequence[tuple[Id, pa.Array]]
) -> Iterator[pa.Table]:
    """Read the features of each domain's entities, all at once."""
    import numpy as np
    import pyarrow as pa

    if not wanted:
        return
    sizes = [len(ids) for _, ids in wanted]
    names = pa.array([domain for domain, _ in wanted], workspace.ids.arrow("domain"))
    table = pa.table(
        {
            DOMAIN_ID: names.take(pa.array(np.repeat(np.arange(len(wanted)), sizes))),
            key: pa.concat_arrays([ids for _, ids in wanted]),
            EVENT_TIMESTAMP: pa.repeat(pa.scalar(midnight(on), TIMESTAMP), sum(sizes)),
        }
    )
    # Fields of the domain alone have one value.
    fields = [field for field in encoder.contract.keyed_by([DOMAIN_ID, key]).fields if key in field.keys]
    features = workspace.feature_repo.retrieve(table, encoder.contract)
    features = features.select([field.name for field in fields])
    start = 0
    for size in sizes:
        yield features.slice(start, size)
        start += size
