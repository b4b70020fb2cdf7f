"""A place that machines share: a folder, and a bucket of a real server of S3's interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmlora.shared.session import Session, in_shared_workspace


@dataclass(frozen=True)
class Machine:
    """A machine: a home that nobody else sees."""

    home: Path
    url: str

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Work as a command does."""
        with in_shared_workspace(self.home, self.url):
            yield self.home

    def write(self, **files: str) -> None:
        """Run a command that writes files; ``__`` in a name stands for a slash."""
        with self.work():
            write(self.home, **files)

    def seen(self) -> dict[str, str]:
        """Run a command that reads all files."""
        with self.work():
            return files_of(self.home)

    def begin(self) -> Session:
        """Begin a command that ends when its session is pushed."""
        session = Session(self.home, self.url)
        session.pull()
        return session


def write(home: Path, **files: str) -> None:
    for name, text in files.items():
        path = home / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files_of(home: Path) -> dict[str, str]:
    paths = sorted(path for path in home.rglob("*") if path.is_file())
    found = {path.relative_to(home).as_posix(): path.read_text() for path in paths}
    return {name: text for name, text in found.items() if not name.startswith(".shared/")}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a moto server, with a bucket named ``mmlora``."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    with pytest.MonkeyPatch.context() as here:
        _use(here, address)
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("mmlora")
    try:
        yield address
    finally:
        server.stop()


def _use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)


@pytest.fixture
def s3_url(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh place in the bucket."""
    _use(monkeypatch, s3_server)
    return f"s3://mmlora/{tmp_path.parent.name}/{tmp_path.name}"


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place of each kind."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    return str(request.getfixturevalue("s3_url"))


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Callable[[str], Machine]:
    """Makes machines by name."""

    def make(name: str) -> Machine:
        (tmp_path / name).mkdir(exist_ok=True)
        return Machine(tmp_path / name, url)

    return make
