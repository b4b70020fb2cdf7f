"""Listings: what determines the files of a source, by default the content of its folder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Protocol

from mmlora.errors import UsageError


class Listing(Protocol):
    """An index of the current files of local folders."""

    def files(self, folder: Path) -> list[str] | None:
        """Return the files of a source's folder; None for a folder that isn't in the index."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Return a context within which all listings are of one moment."""


class FolderListing:
    """The default: all files of a folder count."""

    def files(self, folder: Path) -> list[str] | None:
        """Return None, so that the folder itself is listed."""
        return None

    def snapshot(self) -> AbstractContextManager[None]:
        """Return a context that does nothing, because a folder keeps no earlier states."""
        return nullcontext()


def load_listing(name: str) -> Listing:
    """Import a listing by ``module:object``; an empty name gives :class:`FolderListing`.

    Raises:
        UsageError: the listing can't be imported.
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
