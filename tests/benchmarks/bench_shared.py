"""What a shared workspace costs each command: prints a Markdown table.

A copy of a workspace is pushed to a moto server on this machine, and pulled into an empty home. So the
seconds are those of hashing, of HTTP, of the disk and of a server in Python, and not those of a network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SERVER = "import sys; from moto.server import main; main(['-p', sys.argv[1]])"
PORT = "5557"


def measured(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def megabytes(home: Path) -> tuple[int, float]:
    """Return the number of files in a home, and their size in MB."""
    sizes = [
        path.stat().st_size for path in home.rglob("*") if path.is_file() and ".shared" not in path.parts
    ]
    return len(sizes), sum(sizes) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="a workspace, which is copied")
    workspace = parser.parse_args().home
    os.environ.update(dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "any"))
    os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=f"http://127.0.0.1:{PORT}")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, PORT], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    folder = Path(tempfile.mkdtemp(prefix="mmlora-shared-"))
    try:
        _measure(workspace, folder)
    finally:
        server.terminate()
        shutil.rmtree(folder)


def _measure(workspace: Path, folder: Path) -> None:
    import s3fs

    from mmlora.shared.session import Session

    time.sleep(5)
    s3fs.S3FileSystem().mkdir("shared")
    url, a, b = "s3://shared/workspace", folder / "a", folder / "b"
    shutil.copytree(workspace, a)
    b.mkdir()

    def command(home: Path, write: str = "") -> None:
        session = Session(home, url)
        session.pull()
        if write:
            (home / write).write_text(write)
        session.push()

    print("| what | files | MB | seconds |\n|---|---|---|---|")
    row = "| {} | {:,} | {:,.0f} | {:.2f} |"
    print(row.format("first push of all", *megabytes(a), measured(lambda: command(a))))
    pulled = measured(lambda: command(b))
    print(row.format("first pull", *megabytes(b), pulled))
    print(row.format("nothing to pull or push", 0, 0, measured(lambda: command(b))))
    print(row.format("push of one small file", 1, 0, measured(lambda: command(b, "small"))))
    print(row.format("pull of one small file", 1, 0, measured(lambda: command(a))))
    session = Session(b, url)
    session.pull()
    for training_set in (b / "training_sets").iterdir():
        seconds = measured(lambda name=training_set.name: session.fetch(f"training_sets/{name}"))  # type: ignore[misc]
        print(row.format("fetch of a training set", *megabytes(training_set), seconds))


if __name__ == "__main__":
    main()
