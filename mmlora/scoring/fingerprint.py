"""Fingerprints of what determines a load's rows: as a whole, and for each user.

Two loads with the same fingerprint have the same rows to the last bit, so one may take over what the other
has computed. Features are hashed as the model reads them, i.e. encoded. A user's rows follow from the
user's own features, those of the domain, the user's pairs, and what all users share (model, items, settings,
code, numerics), whoever else is scored (docs/design/bits.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import mmlora
from mmlora import models
from mmlora.candidates.pairs import Candidates
from mmlora.content_hash import ContentHash
from mmlora.encoding import EncodedColumns
from mmlora.numerics import Numerics
from mmlora.schema import fingerprint
from mmlora.scoring.pair_scorer import Sides, encode_users
from mmlora.scoring.staged_shards import cut_shards
from mmlora.scoring.work import Work

DIGEST_BYTES = 16
_SLICE_ROWS = 16_384

UserDigests = NDArray[np.uint64]
"""A digest per user, ``[U, 2]``."""


@dataclass(frozen=True)
class LoadFingerprint:
    """The fingerprints of a load.

    Attributes:
        shared: of what the rows of all users depend on, apart from the date.
        users: of what a user's rows depend on besides, ``[U, 2]``.
        whole: of the whole load, including its users, its date and its division into shards.
    """

    shared: str
    users: UserDigests
    whole: str


def fingerprint_load(
    work: Work, candidates: Candidates, users: pa.Table, *, model: str, numerics: Collection[Numerics]
) -> LoadFingerprint:
    """Return the fingerprints of a load.

    Args:
        work: model, items and domain to score with.
        candidates: the pairs.
        users: one row per candidate user, in the candidates' order, with the fields keyed by the user.
        model: hash of the model, its encoder and calibration.
        numerics: the environments that may compute the rows.
    """
    shared = fingerprint(
        {
            "model": model,
            "code": _code(),
            "numerics": sorted(map(str, numerics)),
            "domain": repr(work.domain_id),
            "top_k": work.top_k,
            "precision": work.precision,
            "block_rows": work.block_rows,
            "listed": candidates.listed,
            "item_ids": _hash_ids(candidates.items),
            "items": hashlib.sha256(_item_bytes(work)).hexdigest(),
        }
    )
    digests = _digest_users(work, candidates, users)
    whole = fingerprint(
        {
            "shared": shared,
            "date": work.on.isoformat(),
            "user_ids": _hash_ids(candidates.users),
            "users": hashlib.sha256(digests.tobytes()).hexdigest(),
            "shards": [shard.last for shard in cut_shards(candidates, work.top_k)],
        }
    )
    return LoadFingerprint(shared, digests, whole)


def _digest_users(work: Work, candidates: Candidates, users: pa.Table) -> UserDigests:
    """Hash each user's encoded features and pairs."""
    digests = bytearray()
    starts = candidates.pairs.starts
    for first in range(0, users.num_rows, _SLICE_ROWS):
        last = min(first + _SLICE_ROWS, users.num_rows)
        encoded = encode_users(work.encoder, users.slice(first, last - first), work.domain)
        pairs = candidates.pairs.item_rows[starts[first] : starts[last]].astype(np.int32).tobytes()
        ends = ((starts[first : last + 1] - starts[first]) * 4).tolist()
        for row, begin, end in zip(_row_bytes(encoded), ends, ends[1:], strict=False):
            digest = hashlib.blake2b(row, digest_size=DIGEST_BYTES)
            digest.update(pairs[begin:end])
            digests += digest.digest()
    return np.frombuffer(bytes(digests), np.uint64).reshape(-1, DIGEST_BYTES // 8)


def _item_bytes(work: Work) -> bytes:
    return _row_bytes(work.encoder.encode(work.items, Sides.of(work.encoder.contract.fields).item)).tobytes()


def _row_bytes(encoded: EncodedColumns) -> NDArray[np.uint8]:
    """Return the bytes of each encoded row, ``[N, W]``."""
    columns = [encoded.categorical, encoded.dense, *encoded.vectors.values(), *encoded.bags.values()]
    sizes = [column.shape[1] * column.itemsize for column in columns]
    rows = np.empty((encoded.rows, sum(sizes)), np.uint8)
    for column, size, end in zip(columns, sizes, np.cumsum(sizes), strict=True):
        rows[:, end - size : end] = np.ascontiguousarray(column).view(np.uint8).reshape(encoded.rows, size)
    return rows


def _hash_ids(ids: pa.Array) -> str:
    content = ContentHash(pa.schema([pa.field("id", ids.type)]))
    content.update(pa.table({"id": ids}))
    return content.hexdigest()


@cache
def _code() -> str:
    """Return a hash of the code that computes scores from encoded features."""
    digest = hashlib.sha256(mmlora.__version__.encode())
    for folder in (Path(models.__file__).parent, Path(__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
