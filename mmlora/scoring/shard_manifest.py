"""The manifest of a load's complete shards, by which an interrupted run's are found and trusted.

It lies in the load's folder, and has the fingerprint of the load (:mod:`mmlora.scoring.fingerprint`) and the
hash of each file. What is not in it, or not as it was recorded, is scored again.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmlora.files import write_json
from mmlora.manifest import FileRecord, record
from mmlora.numerics import Numerics

logger = logging.getLogger(__name__)

MANIFEST = "shards.json"


@dataclass(frozen=True)
class InterruptedShards:
    """Complete shards that interrupted runs of the same load have left.

    Attributes:
        files: their files, by the shard's number.
        numerics: the environments that computed them.
    """

    files: Mapping[int, Path] = field(default_factory=dict)
    numerics: frozenset[Numerics] = frozenset()


def is_staging(folder: Path, fingerprint: str) -> bool:
    """Return whether a folder has shards of a load with this fingerprint."""
    return _read(folder).get("fingerprint") == fingerprint


def staging_host(folder: Path) -> str:
    """Return the name of the machine whose process has staged a folder's shards."""
    return str(_read(folder).get("host", ""))


def read_shards(folders: Iterable[Path], fingerprint: str) -> InterruptedShards:
    """Return the shards of a load in interrupted runs' folders, except those whose files have changed."""
    files, numerics = dict[int, Path](), set[Numerics]()
    for folder in folders:
        manifest = _read(folder)
        if manifest.get("fingerprint") != fingerprint:
            continue
        try:
            computed_by = {Numerics(**each) for each in manifest["numerics"]}
            files |= dict(_unchanged(folder, manifest["files"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("%s can't be used: %s: %s", folder / MANIFEST, type(error).__name__, error)
            continue
        numerics |= computed_by
    return InterruptedShards(files, frozenset(numerics)) if files else InterruptedShards()


class ShardLog:
    """Writes the manifest of a load's complete shards.

    Args:
        folder: the load's folder.
        fingerprint: the load's fingerprint; None keeps no manifest.
    """

    def __init__(self, folder: Path, fingerprint: str | None) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self._files: dict[str, FileRecord] = {}

    def add(self, path: Path, numerics: Iterable[Numerics]) -> None:
        """Record a complete shard, and what has computed the rows so far."""
        if self._fingerprint is None:
            return
        self._files[path.name] = record(path)
        content = {
            "fingerprint": self._fingerprint,
            "host": socket.gethostname(),
            "numerics": [asdict(each) for each in numerics],
            "files": self._files,
        }
        write_json(self._folder / MANIFEST, content)


def _unchanged(folder: Path, files: Mapping[str, FileRecord]) -> Iterator[tuple[int, Path]]:
    for name, stored in files.items():
        path = folder / name
        if not path.exists():  # a later run has taken it over
            continue
        if record(path) == stored:
            yield int(path.stem.removeprefix("part-")), path
        else:
            logger.warning("%s is not as it was staged, so its users are scored again", path)


def _read(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
