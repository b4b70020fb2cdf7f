"""Parts: immutable files named by the SHA-256 of their content.

The same content is one file, whoever writes it, so bundles share what they have in common and a part that
wasn't retrained is provably the same. The formats contain only data (safetensors, Parquet, JSON): reading
them runs no code.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.errors import ContractError
from mmlora.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=16)  # a night reads the same parts for each domain
def _parsed(text: bytes) -> Mapping[str, Any]:
    value: Mapping[str, Any] = json.loads(text)
    return value


class PartStore:
    """Parts under one folder, each verified whenever it is read.

    Args:
        root: the folder; created when the first part is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_tensors(self, tensors: Mapping[str, Tensor]) -> str:
        """Store named tensors; returns the part's hash (64 hex digits)."""
        from safetensors.torch import save

        contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return self._put(save(contiguous), "safetensors")

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Read named tensors.

        Raises:
            ContractError: the part is missing or was tampered with.
        """
        from safetensors.torch import load

        tensors: dict[str, Tensor] = load(self._get(part, "safetensors"))
        return tensors

    def put_table(self, table: pa.Table) -> str:
        """Store a table; its chunks and metadata don't affect the hash."""
        file = io.BytesIO()
        pq.write_table(table.combine_chunks().replace_schema_metadata(None), file, compression="zstd")
        return self._put(file.getvalue(), "parquet")

    def table(self, part: str) -> pa.Table:
        """Read a table (``ContractError`` like :meth:`tensors`)."""
        return pq.read_table(io.BytesIO(self._get(part, "parquet")))

    def put_json(self, value: Mapping[str, Any]) -> str:
        """Store a JSON object; the order of keys doesn't affect the hash."""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return self._put(text.encode(), "json")

    def json(self, part: str) -> Mapping[str, Any]:
        """Read a JSON object, which isn't to be changed (``ContractError`` like :meth:`tensors`)."""
        return _parsed(self._get(part, "json"))

    def fault(self, part: str, suffix: str) -> str:
        """Return what is wrong with a part's file, which is read in blocks; empty when nothing is."""
        file = self.root / f"{part}.{suffix}"
        try:
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
        except FileNotFoundError:
            return f"the file {file} does not exist"
        except OSError as error:
            return f"the file {file} can't be read ({error.strerror})"
        return "" if digest == part else f"the file {file} was changed after it was stored"

    def __contains__(self, part: str) -> bool:
        return any(self.root.glob(f"{part}.*"))

    def _put(self, content: bytes, suffix: str) -> str:
        part = hashlib.sha256(content).hexdigest()
        file = self.root / f"{part}.{suffix}"
        # A damaged file of that name is rewritten.
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != part:
            write_atomically(file, content)
        else:
            file.touch()  # `mmlora gc` leaves alone what was stored lately, whoever names it
        return part

    def _get(self, part: str, suffix: str) -> bytes:
        file = self.root / f"{part}.{suffix}"
        if not file.exists():
            raise ContractError(
                f"part {file} is missing: restore the registry's parts folder, or train again", expected=part
            )
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != part:
            raise ContractError(
                f"part {file} was changed after it was stored (its content hashes to {digest[:12]}): "
                "restore it, or train again",
                expected=part,
                found=digest,
            )
        return content
