"""Carry rows over from the last published night for users for whom nothing has changed since.

Each load keeps a digest of everything that a user's rows depend on (:mod:`mmlora.scoring.fingerprint`). If
what all users share is the same, and computations repeat to the last bit, a user with the same digest has the
same rows. They are read from the warehouse, and used only if that load's rows are still the audited ones.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmlora.content_hash import ContentHash
from mmlora.errors import DataError
from mmlora.files import replacing
from mmlora.load_checks import Fingerprint
from mmlora.manifest import record
from mmlora.nights.rehearsal import Rehearsal
from mmlora.numerics import Numerics
from mmlora.schema import SCORE_DATE, USER_ID, scores_schema
from mmlora.schema import fingerprint as hash_of
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.candidates.pairs import Candidates
    from mmlora.scoring.carried import CarriedRows
    from mmlora.scoring.fingerprint import LoadFingerprint, UserDigests
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)

CARRIED = ".carried.parquet"
"""File in a load's folder with the rows that are carried over, until the load is staged."""
PAIRS_PER_ROW = 5
"""Pairs that are scored in the time in which a row of the last night is read from the warehouse."""


def find_carried(
    workspace: Workspace,
    warehouse: Warehouse | Rehearsal,
    load: Load,
    candidates: Candidates,
    fingerprint: LoadFingerprint,
    numerics: Collection[Numerics],
) -> CarriedRows | None:
    """Copy the rows that can be carried over from the newest published night up to a load's date.

    Args:
        workspace: the workspace.
        warehouse: the warehouse.
        load: the load that is scored.
        candidates: its candidates.
        fingerprint: its fingerprints.
        numerics: the environments that may compute its other rows.

    Returns:
        The rows and their users; None if there are none.
    """
    from mmlora.scoring.carried import CarriedRows

    if not workspace.settings.scoring.carry_over:
        return None
    published = warehouse.publications(domain=load.domain_id, end=load.score_date)
    source = warehouse.load(published[0].load_id) if published else None
    kept = source.checks.fingerprint if source and source.checks else None
    if source is None or kept is None or kept.shared != fingerprint.shared:
        return None
    if {source.numerics} != set(numerics) or not all(each.is_strict for each in numerics):
        return None
    users = _unchanged(digests_file(workspace, source), kept, candidates.users, fingerprint.users)
    # Copying a load's rows takes as long as scoring some pairs, so few pairs aren't worth it.
    if candidates.counts[users].sum() < max(1, PAIRS_PER_ROW * (source.rows or 0)):
        return None
    file = workspace.staging_folder(load.load_id) / CARRIED
    ids = candidates.users.filter(pa.array(users))
    if not _copy(warehouse, source, ids, load.score_date, scores_schema(workspace.ids), file):
        return None
    return CarriedRows(source.load_id, users, file, frozenset(numerics))


def keep_digests(
    workspace: Workspace,
    warehouse: Warehouse | Rehearsal,
    load: Load,
    users: pa.Array,
    fingerprint: LoadFingerprint,
) -> Fingerprint | None:
    """Store the users' digests for later nights; return what the load's record has of them.

    None is stored in a dry run, or if rows are not to be carried over.
    """
    if isinstance(warehouse, Rehearsal) or not workspace.settings.scoring.carry_over:
        return None
    file = digests_file(workspace, load)
    high, low = fingerprint.users.T
    with replacing(file) as aside:
        pq.write_table(pa.table({USER_ID: users, "high": high, "low": low}), aside, compression="none")
    return Fingerprint(fingerprint.shared, record(file)["sha256"])


def forget_digests(workspace: Workspace, published: Load) -> None:
    """Remove the digests of a domain's other loads up to a published load's date."""
    mine = digests_file(workspace, published)
    for file in mine.parent.glob("*.parquet"):
        if file != mine and file.name[:10] <= published.score_date.isoformat():
            file.unlink(missing_ok=True)


def digests_file(workspace: Workspace, load: Load) -> Path:
    """Return the file with the digests of a load's users."""
    domain = hash_of(repr(load.domain_id))[:16]  # a name may be too long for a folder, or have slashes
    return workspace.home / "user_digests" / domain / f"{load.load_id}.parquet"


def _unchanged(file: Path, kept: Fingerprint, users: pa.Array, digests: UserDigests) -> NDArray[np.bool_]:
    """Return the users whose digests are those of the source, ``[U]``."""
    none = np.zeros(len(users), bool)
    if not file.exists() or record(file)["sha256"] != kept.users:
        return none
    before = pq.read_table(file)
    rows = pc.index_in(users, value_set=before.column(USER_ID).combine_chunks())
    known: NDArray[np.bool_] = np.asarray(rows.is_valid())
    stored = np.stack([before.column(name).to_numpy() for name in ("high", "low")], axis=1)
    if not len(stored):
        return none
    same: NDArray[np.bool_] = (stored[pc.fill_null(rows, 0).to_numpy()] == digests).all(axis=1)
    return known & same


def _copy(
    warehouse: Warehouse | Rehearsal, source: Load, users: pa.Array, on: date, schema: pa.Schema, file: Path
) -> bool:
    """Copy the users' rows with another date; return False if the source isn't as it was audited."""
    content, dated = ContentHash(schema), schema.get_field_index(SCORE_DATE)
    try:
        with pq.ParquetWriter(file, schema, compression="none") as writer:
            for batch in warehouse.rows_of(source):
                rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
                content.update(rows)
                rows = rows.filter(pc.is_in(rows.column(USER_ID), value_set=users))
                days = pa.repeat(pa.scalar(on, pa.date32()), rows.num_rows)
                writer.write_table(rows.set_column(dated, schema.field(dated), days))
    except (DataError, pa.ArrowException, TypeError, ValueError) as error:
        logger.warning("no rows of load %s are carried over: %s", source.load_id, error)
        return False
    if content.hexdigest() != source.content_hash:
        logger.warning(
            "no rows are carried over from load %s, because its rows in the warehouse are not the audited "
            "ones: run `mmlora verify`",
            source.load_id,
        )
        return False
    return True
