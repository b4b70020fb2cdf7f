"""Who says which files a source consists of: by default its folder, else what the store's setting names."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Protocol

from mmlora.errors import UsageError


class Listing(Protocol):
    """A place that knows better than a local folder which of its files count."""

    def files(self, folder: Path) -> list[str] | None:
        """Return the files of a source's folder; None for one that it knows nothing of."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Have all that is listed inside be of one moment."""


class FolderListing:
    """Each folder holds what it holds."""

    def files(self, folder: Path) -> list[str] | None:
        """Leave the question to the folder."""
        return None

    def snapshot(self) -> AbstractContextManager[None]:
        """Do nothing: a folder has no moments."""
        return nullcontext()


def load_listing(name: str) -> Listing:
    """Import a listing by ``module:object``; an empty name is :class:`FolderListing`.

    Raises:
        UsageError: there is none of that name.
    """
    if not name:
        return FolderListing()
    module, _, attribute = name.partition(":")
    try:
        listing: Listing = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"offline_store: listing {name!r} cannot be imported ({error}): write `module:object`"
        ) from None
    return listing
