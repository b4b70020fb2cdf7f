"""Work in a shared workspace: pull, work on the machine's own copy, push."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mmlora.errors import TransientError, UsageError
from mmlora.files import locked
from mmlora.shared.files import STATE, STORE, Entry, Files, merge, on_demand, shown
from mmlora.shared.local import LocalCopy
from mmlora.shared.remote import Remote, Swept, Version

logger = logging.getLogger(__name__)

SAFE_AGE = timedelta(days=1)
"""For how long replaced versions and unnamed objects are kept: a pull or push under way may need them."""
_UNFINISHED_IMPORT = "offline/.pending"
_USERS_OWN = "feature_repo/"
_WORKING_IN = "MMLORA_SHARED_HOME"
"""Variable by which the processes that a command starts know that it works in the shared workspace."""

_sessions: dict[Path, Session] = {}


class Session:
    """A command's work in a shared workspace, on a home that it has for itself.

    Args:
        home: the machine's own copy of the workspace.
        url: the shared workspace's URL.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.home, self._remote, self._copy = home, Remote(url), LocalCopy(home, url)

    def pull(self) -> None:
        """Bring the home up to the newest version.

        What a killed or failed command has left stays if nobody has changed anything since, and otherwise
        where it doesn't clash with the newest version. It never stays in the offline store, whose files
        belong together, or once users were erased.

        Raises:
            UsageError: the home has files of another workspace.
            DataError: an object is missing or damaged, or versions are.
        """
        newest = self._remote.newest_number()
        if newest < self._copy.version:
            raise self._remote.cut_short(newest, self._copy.version)
        if not newest and not self._copy.version:
            self._copy.whole = True  # the first push shares whatever is here
        while not (self._copy.whole and newest == self._copy.version):
            try:
                return self._pull(self._remote.newest())
            except FileNotFoundError as error:  # users were erased meanwhile, or it slept for a day
                before, newest = newest, self._remote.newest_number()
                if newest == before:
                    path = str(error)
                    entry = self._remote.newest().files[path]
                    raise self._remote.damaged(path, entry, "does not exist") from None

    def _pull(self, newest: Version) -> None:
        copy, ours = self._copy, self._copy.scan()
        if not copy.version and newest.number:
            _refuse_strangers(self.home, newest.files, ours)
        if erased := newest.erased > copy.version:
            copy.discard_own()
        wanted, replaced = Files(), []
        for path in sorted({*copy.base, *ours, *newest.files}):
            before, their, our = copy.base.get(path), newest.files.get(path), ours.get(path)
            stays = path.startswith(_USERS_OWN) if erased else not path.startswith(STORE)
            left = our != before and (our and our.sha256) != (their and their.sha256)
            if left and stays and their == before:
                their = our
            elif left:
                replaced.append(path)
            if their is not None:
                wanted[path] = their
        if replaced:
            logger.warning(
                "the shared workspace has changed since a command here was stopped, so what that has left in "
                "%s is replaced by the newest version",
                shown(replaced),
            )
        self._apply(newest, wanted, ours)
        copy.version, copy.whole = newest.number, True
        copy.save()

    def _apply(self, newest: Version, wanted: Mapping[str, Entry], ours: Mapping[str, Entry]) -> None:
        """Make the home have the wanted files: download, date and remove."""
        copy = self._copy
        here = {on_demand(path) for path in ours} - copy.absent
        copy.absent = {f for path in newest.files if (f := on_demand(path)) is not None and f not in here}
        changed = {path for path in {*ours, *wanted} if ours.get(path) != wanted.get(path)}
        changed |= {path for path in copy.base if path not in newest.files}
        coming = {p: wanted.get(p) for p in changed if on_demand(p) not in copy.absent}
        copy.save(coming)
        for path in [path for path, entry in coming.items() if entry is None]:
            copy.remove(path)
        needed = []
        for path, entry in coming.items():
            if entry is None:
                continue
            if path in ours and ours[path].sha256 == entry.sha256:
                copy.date(path, entry)
            else:
                needed.append((path, entry))
        self._download(needed)
        for folder in copy.absent:
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        copy.base = dict(newest.files)
        copy.date_folders(changed)

    def _download(self, needed: list[tuple[str, Entry]]) -> None:
        if needed:
            size = sum(entry.size for _, entry in needed)
            logger.info("pulling %s files, %s bytes", f"{len(needed):,}", f"{size:,}")
            self._remote.download(needed, self._copy.incoming, self._copy.place)
            os.sync()  # once for all: what is recorded as pulled must outlive a power cut

    def fetch(self, path: str) -> None:
        """Fetch a folder on demand, such as ``training_sets/<id>``, unless it is here or doesn't exist."""
        copy = self._copy
        if path not in copy.absent or not (self.home / path).is_dir():
            return
        entries = [(name, entry) for name, entry in copy.base.items() if on_demand(name) == path]
        try:
            self._download(entries)
        except FileNotFoundError as error:
            if str(error) in self._remote.newest().files:
                raise self._remote.damaged(str(error), copy.base[str(error)], "does not exist") from None
            raise TransientError(f"another machine has removed {path} meanwhile: try again") from None
        copy.absent.discard(path)
        copy.date_folders([name for name, _ in entries])
        copy.save()

    def push(self, *, unfinished: bool = False, erase: bool = False) -> None:
        """Share what has changed in the home as the next version.

        Args:
            unfinished: whether the command failed, so that changes of the offline store are left out.
            erase: whether users were erased: then machines that began before can't push, and no object of an
                earlier version stays.

        Raises:
            TransientError: another machine has changed the same files, or erased users.
        """
        copy = self._copy
        ours = copy.scan()
        if unfinished or (self.home / _UNFINISHED_IMPORT).exists():
            outside = {path: entry for path, entry in ours.items() if not path.startswith(STORE)}
            ours = outside | {path: entry for path, entry in copy.base.items() if path.startswith(STORE)}
        if ours == copy.base and not erase:
            return copy.save()
        while True:
            newest = self._remote.newest()
            if newest.erased > copy.version:
                raise TransientError(
                    "users were erased from the shared workspace since this command began, so nothing of its "
                    "work was shared, because their rows may be in it: run it again"
                )
            files, number = merge(copy.base, newest.files, ours), newest.number + 1
            if files == newest.files and not erase:
                break
            self._upload(files, ours, newest)
            if self._remote.create(Version(number, files, number if erase else newest.erased)):
                break
        if erase:
            self._remote.forget(number)
        alone, paths = newest.number == copy.version, {*files, *copy.base}
        in_step = {path: files.get(path) == ours.get(path) for path in paths}  # else it is yet to be pulled
        base = {path: (files if in_step[path] else copy.base).get(path) for path in paths}
        copy.base = {path: entry for path, entry in base.items() if entry is not None}
        copy.version, copy.whole = (newest.number if files == newest.files else number), copy.whole and alone
        return copy.save()

    def _upload(self, files: Files, ours: Files, newest: Version) -> None:
        there = {entry.sha256 for entry in newest.files.values()}
        new = {
            path: entry
            for path, entry in files.items()
            if entry.sha256 not in there
            and ours.get(path) == entry
            and on_demand(path) not in self._copy.absent
        }
        size = sum(entry.size for entry in new.values())
        logger.info("pushing %s files, %s bytes", f"{len(new):,}", f"{size:,}")
        self._remote.upload({entry.sha256: self.home / path for path, entry in new.items()})
        if changed := [path for path in new if not self._copy.unchanged(path)]:
            raise TransientError(f"{shown(changed)} changed while they were pushed: try again")

    def sweep(self, *, dry_run: bool) -> Swept:
        """Remove the versions that were replaced more than a day ago, and objects that none names."""
        return self._remote.sweep(datetime.now(UTC) - SAFE_AGE, dry_run=dry_run)


@contextmanager
def in_shared_workspace(home: Path, url: str) -> Iterator[None]:
    """Pull before the block, and push after it, also if it fails; within another such block do nothing.

    Commands that use the same home run one after the other.

    Args:
        home: the machine's own copy of the workspace.
        url: the shared workspace's URL.

    Raises:
        TransientError: another machine has changed the same files, or the URL can't be reached.
        UsageError, AccessError, DataError: the URL, or what is stored there, can't be used.
    """
    if home in _sessions:
        yield
        return
    waiting = f"another command works in {home}: waiting for it"
    with locked(home / STATE / "lock", waiting=waiting):
        session = Session(home, url)
        session.pull()
        _sessions[home], os.environ[_WORKING_IN] = session, str(home)
        try:
            yield
        except BaseException:
            _push_unfinished(session)
            raise
        else:
            session.push()
        finally:
            del _sessions[home]
            os.environ.pop(_WORKING_IN, None)


def _push_unfinished(session: Session) -> None:
    """Share what a failed command has left for its retry; the command's own error is what is to be told."""
    try:
        session.push(unfinished=True)
    except Exception as error:
        logger.warning("what the failed command has left can't be shared: %s", error)


def session_of(home: Path) -> Session | None:
    """Return this process's session of a home; None in a process that a command has started.

    Raises:
        UsageError: no command works in the home.
    """
    if home not in _sessions and os.environ.get(_WORKING_IN) != str(home):
        raise UsageError(
            "the workspace is shared (shared_url): in a program of your own, work within "
            "`with mmlora.workspace.shared_workspace():`, as the command line and the DAGs do"
        )
    return _sessions.get(home)


def _refuse_strangers(home: Path, there: Files, here: Files) -> None:
    """Refuse to mix a workspace that was never shared with the shared one."""
    strangers = [
        path for path, e in sorted(here.items()) if path not in there or there[path].sha256 != e.sha256
    ]
    if strangers:
        raise UsageError(
            f"{home} has files that the shared workspace doesn't have: {shown(strangers)}; set MMLORA_HOME "
            "to an empty folder, which will be this machine's copy"
        )
