"""The shared workspace's side of the URL: immutable objects, and versions that name them.

::

    objects/<sha256>         a file's content
    versions/<number>.json   every file's path with its hash, size and time; created once, never changed

A version is created exclusively, so of two machines that create the same number one fails, reads what the
other created, and takes the next. There is no lock, and so none to break.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import fsspec

from mmlora.errors import AccessError, DataError, MmloraError, TransientError, UsageError
from mmlora.files import ASIDE
from mmlora.shared.files import Entry, Files

_BATCH, _REMOVED = 32, 1000
"""Objects that are transferred, and removed, at once."""
_NO_BUCKET = "bucket does not exist"


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Version:
    """A version of the shared workspace.

    Attributes:
        number: from 1 on; 0 when nothing was shared yet.
        files: its files.
        erased: the number of the newest version from which users were erased; 0 for none.
    """

    number: int = 0
    files: Files = field(default_factory=dict)
    erased: int = 0


@dataclass(frozen=True)
class Swept:
    """What a sweep has removed, or would remove: versions, objects, and their bytes."""

    versions: int
    version_bytes: int
    objects: int
    object_bytes: int


class Remote:
    """A shared workspace's objects and versions.

    Args:
        url: ``s3://bucket/path`` or ``file:///path``.

    Raises:
        UsageError: what reads the URL isn't installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        options = {"auto_mkdir": True} if self.url.startswith("file:") else {}
        try:
            self._files, root = fsspec.core.url_to_fs(
                self.url, skip_instance_cache=True, use_listings_cache=False, **options
            )
        except ImportError as error:
            raise UsageError(f"shared_url {self.url}: {error}; pip install 'mmlora[s3]'") from None
        self._local = bool(options)
        self._objects, self._versions = f"{root}/objects", f"{root}/versions"

    def newest(self) -> Version:
        """Return the newest version."""
        numbers = self._numbers()
        return self._read(max(numbers)) if numbers else Version()

    def newest_number(self) -> int:
        """Return the number of the newest version; 0 when nothing was shared yet."""
        return max(self._numbers(), default=0)

    def create(self, version: Version) -> bool:
        """Create a version; return False if another machine has created its number first."""
        content = json.dumps(
            {"erased": version.erased, "files": {p: astuple(e) for p, e in sorted(version.files.items())}}
        ).encode()
        path = self._path(version.number)
        with self._reached("write to"):
            if not self._create(path, content):
                return False
            if version.number == 1 and self._create(path, content):
                self._files.rm_file(path)
                raise UsageError(
                    f"{self.url} replaces an object that was to be created only if it doesn't exist "
                    "(If-None-Match of S3), so two machines could overwrite each other's work: use a store "
                    "that can do it"
                )
            if version.number > 1 and not self._files.exists(self._path(version.number - 1)):
                # This process slept until its number was used and swept: the newest version is far ahead.
                self._files.rm_file(path)
                return False
        return True

    def _create(self, path: str, content: bytes) -> bool:
        """Create an object as a whole; return False if it exists."""
        try:
            if not self._local:
                self._files.pipe_file(path, content, mode="create")
                return True
            aside = f"{self._versions}/.{uuid4().hex}{ASIDE}"
            self._files.pipe_file(aside, content)
            try:
                self._files.link(aside, path)
            finally:
                self._files.rm_file(aside)
        except FileExistsError:
            return False
        return True

    def upload(self, sources: Mapping[str, Path]) -> None:
        """Write objects, each as a whole.

        Args:
            sources: the file with the content of each object, by its hash.
        """
        with self._reached("write to"):
            for batch in _batches(sources.items(), _BATCH):
                paths = [self._object(sha256) for sha256, _ in batch]
                asides = [f"{path}.{uuid4().hex}{ASIDE}" for path in paths] if self._local else paths
                self._files.put([str(source) for _, source in batch], asides)
                if self._local:
                    for aside, path in zip(asides, paths, strict=True):
                        self._files.mv(aside, path)

    def download(
        self, entries: Iterable[tuple[str, Entry]], folder: Path, done: Callable[[str, Entry, Path], object]
    ) -> None:
        """Read objects.

        Args:
            entries: path and entry of each file.
            folder: where they are written before ``done``.
            done: called with each path and entry, and the file with the verified content.

        Raises:
            FileNotFoundError: an object doesn't exist; the path of its file is the message.
            DataError: an object has another content than its name says.
        """
        for batch in _batches(entries, _BATCH):
            targets = [folder / uuid4().hex for _ in batch]
            with self._reached("read"):
                try:
                    self._files.get([self._object(e.sha256) for _, e in batch], [str(t) for t in targets])
                except FileNotFoundError:
                    missing = [path for path, e in batch if not self._files.exists(self._object(e.sha256))]
                    raise FileNotFoundError(missing[0] if missing else batch[0][0]) from None
            for (path, entry), target in zip(batch, targets, strict=True):
                with target.open("rb") as content:
                    digest = hashlib.file_digest(content, "sha256").hexdigest()
                if digest != entry.sha256:
                    raise self.damaged(path, entry, f"holds other bytes than were stored ({digest[:12]})")
                done(path, entry, target)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file of the newest version; None if it has none of this path."""
        entry = self.newest().files.get(path)
        if entry is None:
            return None
        with self._reached("read"):
            content = bytes(self._files.cat_file(self._object(entry.sha256)))
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise self.damaged(path, entry, "holds other bytes than were stored")
        return content

    def damaged(self, path: str, entry: Entry, what: str) -> MmloraError:
        """Return the error for an object that isn't as it was stored."""
        return DataError(
            f"{self.url}/objects/{entry.sha256}",
            f"{what}; it is {path} of the workspace: copy that file here from MMLORA_HOME of a machine that "
            "has it, or restore the object from a backup",
        )

    def cut_short(self, newest: int, known: int) -> MmloraError:
        """Return the error for a workspace that has lost versions, since a pull would remove files here."""
        return DataError(
            f"{self.url}/versions",
            f"the newest version is {newest}, but version {known} was pulled here before: restore it from a "
            "backup. If it is lost for good, name a new place in shared_url and run a command on the machine "
            "with the best copy, which shares that copy",
        )

    def sweep(self, before: datetime, *, dry_run: bool = False) -> Swept:
        """Remove versions that were replaced before a time, and objects that no other version names.

        Objects written since then stay, because their version may be under way.
        """
        with self._reached("sweep"):
            numbers = sorted(self._numbers())
            replaced = [n for n, after in pairwise(numbers) if self._since(after) < before]
            versions = {path: int(self._files.info(path)["size"]) for path in map(self._path, replaced)}
            named = self._named(n for n in numbers if n not in replaced)
            objects = {
                path: size
                for path, size in self._stored()
                if path.rpartition("/")[2] not in named and self._files.modified(path) < before
            }
            if not dry_run:
                for path in versions:  # in order, so that a number is never free while one before it exists
                    self._files.rm_file(path)
                self._remove(objects)
        return Swept(len(versions), sum(versions.values()), len(objects), sum(objects.values()))

    def forget(self, number: int) -> None:
        """Remove the objects of the versions before a number, but for those that later ones name.

        The versions stay, which have no content of files: so none of their numbers is free.
        """
        with self._reached("sweep"):
            numbers, moment = self._numbers(), self._since(number)
            later = self._named(n for n in numbers if n >= number)
            earlier = self._named(n for n in numbers if n < number)
            forgotten = []
            for path, _ in self._stored():
                sha256, written = path.rpartition("/")[2], self._files.modified(path)
                # Objects of versions under way are younger; times of S3 are whole seconds.
                if sha256 not in later and (written < moment or (written == moment and sha256 in earlier)):
                    forgotten.append(path)
            self._remove(forgotten)

    def _named(self, numbers: Iterable[int]) -> set[str]:
        return {entry.sha256 for number in numbers for entry in self._read(number).files.values()}

    def _stored(self) -> Iterator[tuple[str, int]]:
        for path, info in self._files.find(self._objects, detail=True).items():
            yield path, int(info["size"])

    def _remove(self, paths: Iterable[str]) -> None:
        for batch in _batches(paths, _REMOVED):
            self._files.rm(batch)

    def _since(self, number: int) -> datetime:
        moment: datetime = self._files.modified(self._path(number))
        return moment

    def _read(self, number: int) -> Version:
        with self._reached("read"):
            raw: dict[str, Any] = json.loads(self._files.cat_file(self._path(number)))
        return Version(number, {path: Entry(*e) for path, e in raw["files"].items()}, raw["erased"])

    def _numbers(self) -> Collection[int]:
        with self._reached("read"):
            try:
                listed = self._files.ls(self._versions, detail=False)
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                return ()
        names = (path.rpartition("/")[2] for path in listed)
        return [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]

    def _path(self, number: int) -> str:
        return f"{self._versions}/{number:012}.json"

    def _object(self, sha256: str) -> str:
        return f"{self._objects}/{sha256}"

    @contextmanager
    def _reached(self, doing: str) -> Iterator[None]:
        """Turn what the store or its library raise into our errors, but for a missing object."""
        try:
            yield
        except MmloraError:
            raise
        except FileNotFoundError as error:
            if _NO_BUCKET not in str(error):
                raise
            raise UsageError(f"shared_url {self.url}: there is no such bucket: create it first") from None
        except Exception as error:
            denied = isinstance(error, PermissionError) or "credentials" in str(error).lower()
            kind = AccessError if denied else TransientError
            raise kind(
                f"can't {doing} the shared workspace {self.url}: {' '.join(str(error).split())}"
            ) from error


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    every = list(items)
    yield from (every[start : start + size] for start in range(0, len(every), size))
