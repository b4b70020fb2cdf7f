"""The errors that mmlora raises, with their facts as attributes.

::

    MmloraError                exit  retried by Airflow
    ├── UsageError             2     no    an option, setting or name is wrong
    ├── DataError              1     no    a file or table breaks its contract
    ├── CheckError             1     no    a check failed
    ├── ContractError          1     no    bundle, features or ids differ from what was agreed
    ├── AccessError            1     no    a database refuses: wrong password, no such database, no right
    └── TransientError         75    yes   worth a retry: database gone, lock held

A message says what was given, what is valid and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmlora.redaction import redact


class MmloraError(Exception):
    """Base of every error raised on purpose.

    What to do: catch one of those below, unless all are the same to you.
    """

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """Return the message with its secrets hidden."""
        return redact(super().__str__())


class UsageError(MmloraError):
    """An option, setting or name is wrong; nothing was started.

    What to do: correct what the message names; it says what is valid.
    """

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One fault in one file or table.

    Attributes:
        what: the fault in a clause, e.g. ``"null in user_id"``.
        column: the column at fault, or None when it concerns the whole table.
        count: number of rows at fault (0 when the fault doesn't concern rows).
        rows: the first rows at fault, as short texts (row number and values).
    """

    what: str
    column: str | None = None
    count: int = 0
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = self.what if self.column is None else f"column {self.column!r}: {self.what}"
        if self.count:
            text += f" ({self.count:,} rows"
            text += f"; first: {'; '.join(self.rows)})" if self.rows else ")"
        return text


class DataError(MmloraError):
    """A file or table breaks its contract; nothing of it was written.

    What to do: repair the file or table, or restore it from a backup, and run the command again;
    `mmlora verify` finds what else is damaged.

    Attributes:
        source: the file or table.
        faults: every fault found, gathered before raising.
    """

    def __init__(self, source: str, faults: Sequence[Fault] | str) -> None:
        self.source = source
        self.faults = (Fault(faults),) if isinstance(faults, str) else tuple(faults)
        super().__init__(f"{source}: " + "\n  ".join(str(fault) for fault in self.faults))


class CheckError(MmloraError):
    """A check failed, so the data or a load can't be used.

    What to do: repair what the check found; if the data is right, `--override CHECK --reason TEXT` scores
    the night all the same (docs/quality.md).

    Attributes:
        check: the name of the suite or audit.
        failures: one line per failed expectation.
    """

    def __init__(self, check: str, failures: Sequence[str]) -> None:
        self.check = check
        self.failures = tuple(failures)
        super().__init__(f"{check} failed: " + "; ".join(self.failures))


class ContractError(MmloraError):
    """Bundle, features or ids differ from what was agreed.

    What to do: use the model, features or data that belong together, or train again.

    Attributes:
        expected: what the contract says.
        found: what was given or found instead.
    """

    def __init__(self, message: str, *, expected: object = None, found: object = None) -> None:
        self.expected = expected
        self.found = found
        super().__init__(message)


class AccessError(MmloraError):
    """A database refuses access for good: a wrong password, an unknown database, a missing privilege.

    What to do: correct the URL in the settings, or have the right granted.
    """


class TransientError(MmloraError):
    """A retry may succeed: the database is unavailable, a lock is held, the disk is full.

    What to do: run the command again later; Airflow's tasks do so by themselves.
    """

    exit_code = 75


_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_PASSING_TEXTS = (
    *("no space left on device", "disk quota exceeded", "read-only file system", "permission denied"),
    *("database or disk is full", "attempt to write a readonly database"),
)


def meaning_of(error: BaseException) -> MmloraError | None:
    """Return mmlora's error for a file error, or None for a programming error.

    Libraries raise their own errors for a full disk, so messages are matched as well.
    """
    if isinstance(error, MmloraError):
        return error
    text = " ".join(str(error).split())
    passing = isinstance(error, OSError) and error.errno in _PASSING
    if passing or any(words in text.lower() for words in _PASSING_TEXTS):
        return TransientError(
            f"cannot write or read: {text}; free some space or correct the permissions, then try again"
        )
    return None
