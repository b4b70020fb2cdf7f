"""A file is there as a whole or not at all, whatever happens to its writer."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmlora.errors import TransientError
from mmlora.files import ASIDE, locked, replacing, write_atomically

KILLED = """
import os, signal, sys
from pathlib import Path
from mmlora.files import locked, replacing

path = Path(sys.argv[1])
with locked(path.with_name("lock")), replacing(path, alone=True) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["ä\n", b"\x00\xff"])
def test_texts_and_bytes_replace_what_was_there(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "new" / "file"
    for _ in range(2):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("alone", [True, False])
def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path, alone: bool) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path, alone=alone) as aside:
        aside.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_what_was_there_and_the_next_writes_over_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and (tmp_path / f".file{ASIDE}").read_text() == "half"
    with locked(tmp_path / "lock", wait=0), replacing(path, alone=True) as aside:
        assert not aside.exists()
        aside.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == ["file", "lock"]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder", alone=True) as aside:
        aside.mkdir()
        write_atomically(aside / "a", "1")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "a").read_text() == "1"


def test_a_lock_that_another_holds_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(TransientError, match="try later"),
        locked(tmp_path / "lock", wait=0, busy="try later"),
    ):
        pass
    with locked(tmp_path / "lock", wait=0):
        pass


def test_an_error_inside_a_lock_is_not_taken_for_a_lock_that_is_held(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="mine"), locked(tmp_path / "lock", wait=0):
        raise TimeoutError("mine")
