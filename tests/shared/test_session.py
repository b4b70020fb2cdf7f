"""Machines that share a workspace by a URL, on files alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from mmlora.errors import AccessError, DataError, TransientError, UsageError
from mmlora.shared.remote import Remote, Version
from mmlora.shared.session import Session
from tests.shared.conftest import Machine, files_of, write

Make = Callable[[str], Machine]


def test_what_one_writes_the_other_reads(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    a.write(offline__x="1", runs__r__config="2")
    assert b.seen() == {"offline/x": "1", "runs/r/config": "2"}
    with b.work() as home:
        (home / "offline/x").unlink()
        write(home, runs__r__config="3")
    assert a.seen() == {"runs/r/config": "3"}
    assert not (a.home / "offline").exists(), "folders that became empty go too"


def test_what_is_a_machines_own_stays_there(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    own = dict.fromkeys(
        [
            *(
                "warehouse.db",
                "scores.duckdb.wal",
                "offline__.lock",
                "offline__.verified.json",
                "cache__ml-1m",
            ),
            *("offline__.spill__duckdb-1__x", "staging__l__.part-00000.parquet.partial", "experiments__x__y"),
            *(
                "training_sets__.features__f.arrow",
                "feast__feature_store.yaml",
                "runs__.r.discarded.partial__x",
            ),
        ],
        "",
    )
    a.write(**own, shared="1")
    assert b.seen() == {"shared": "1"}
    assert len(files_of(a.home)) == len(own) + 1, "a pull doesn't remove them either"


def test_nothing_changed_is_no_version(machine: Make, url: str) -> None:
    a = machine("a")
    a.write(x="1")
    a.seen()
    machine("b").seen()
    assert Remote(url).newest_number() == 1


def test_unchanged_files_are_not_hashed_or_downloaded_again(
    machine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="1", y="1")
    b.write(y="2")
    hashed, downloaded = [], []
    original = Remote.download
    monkeypatch.setattr("mmlora.shared.local._hash", lambda path: hashed.append(path) or "f" * 64)
    monkeypatch.setattr(
        Remote, "download", lambda self, e, *rest: downloaded.extend(e) or original(self, e, *rest)
    )
    assert a.seen() == {"x": "1", "y": "2"}
    assert (hashed, [path for path, _ in downloaded]) == ([], ["y"])


def test_a_failed_command_leaves_its_work_for_the_retry_but_for_the_store(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    a.write(offline__manifest="1")
    with pytest.raises(ZeroDivisionError), a.work() as home:
        write(home, offline__manifest="2", staging__load__part="rows")
        raise ZeroDivisionError
    assert b.seen() == {"offline/manifest": "1", "staging/load/part": "rows"}


def test_the_commands_own_error_is_raised_if_its_work_cannot_be_shared(
    machine: Make, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="0")
    with pytest.raises(ZeroDivisionError), a.work() as home:
        write(home, x="a")
        b.write(x="b")
        raise ZeroDivisionError
    assert "can't be shared: another machine has changed the same files" in caplog.text
    assert a.seen() == {"x": "b"}


def test_an_unfinished_import_is_not_shared(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    a.write(offline__manifest="1")
    a.write(offline__manifest="2", offline__half="2", **{"offline__.pending__rest": "2"}, x="2")
    assert b.seen() == {"offline/manifest": "1", "x": "2"}
    assert a.seen()["offline/half"] == "2", "nobody was there meanwhile, so the next command here finishes it"
    b.write(offline__manifest="3")
    assert a.seen() == {"offline/manifest": "3", "x": "2"}, "never mixed with another machine's import"


def test_changes_of_different_files_both_land(machine: Make) -> None:
    a, b, c = machine("a"), machine("b"), machine("c")
    a.write(x="0", y="0", z="0")
    one, two = a.begin(), b.begin()
    write(a.home, x="a", new__a="a")
    write(b.home, y="b", new__b="b")
    (b.home / "z").unlink()
    one.push()
    two.push()
    expected = {"x": "a", "y": "b", "new/a": "a", "new/b": "b"}
    assert [each.seen() for each in (a, b, c)] == [expected] * 3


def test_of_changes_of_the_same_file_one_is_to_be_tried_again(machine: Make, url: str) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="0", y="0")
    one, two = a.begin(), b.begin()
    write(a.home, x="a")
    write(b.home, x="b", y="b")
    one.push()
    with pytest.raises(TransientError, match=r"same files of the shared workspace: x; nothing"):
        two.push()
    assert Remote(url).newest_number() == 2
    b.write(x="a+b", y="b")
    assert a.seen() == {"x": "a+b", "y": "b"}


def test_the_same_change_twice_is_no_clash(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    one, two = a.begin(), b.begin()
    write(a.home, x="same")
    write(b.home, x="same", y="b")
    one.push()
    two.push()
    assert a.seen() == {"x": "same", "y": "b"}


@pytest.mark.parametrize("removed_first", [False, True])
def test_a_file_that_was_used_is_not_removed_by_another_machine(machine: Make, removed_first: bool) -> None:
    a, b = machine("a"), machine("b")
    a.write(part="1", old="1")
    using, removing = a.begin(), b.begin()
    (a.home / "part").touch()  # as a new model that names it does
    write(a.home, model="names the part")
    (b.home / "part").unlink()  # as `mmlora gc` does
    first, second = (removing, using) if removed_first else (using, removing)
    first.push()
    with pytest.raises(TransientError, match="same files of the shared workspace: part;"):
        second.push()
    left = {"old": "1"} if removed_first else {"part": "1", "old": "1", "model": "names the part"}
    assert machine("c").seen() == left


def test_a_version_is_created_by_one_machine_only(url: str) -> None:
    one, two = Remote(url), Remote(url)
    assert one.create(Version(1))
    assert not two.create(Version(1))
    assert one.create(Version(2)) and two.newest_number() == 2


def test_a_machine_that_wakes_up_in_the_past_cannot_create_a_version(url: str, machine: Make) -> None:
    for n in range(4):
        machine("a").write(x=str(n))
    Remote(url).sweep(datetime.now(UTC) + timedelta(days=1))
    assert not Remote(url).create(Version(2)), "its number is free again, but the versions are beyond it"
    assert machine("b").seen() == {"x": "3"}


def test_times_of_files_and_folders_travel(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    with a.work() as home:
        write(home, runs__r__config="1", runs__r__final__config="2")
        os.utime(home / "runs/r/config", (1e9, 1e9))
        os.utime(home / "runs/r/final/config", (1.1e9, 1.1e9))
    b.seen()
    times = {
        path: (b.home / path).stat().st_mtime for path in ("runs/r/config", "runs/r/final", "runs/r", "runs")
    }
    assert times == {"runs/r/config": 1e9, "runs/r/final": 1.1e9, "runs/r": 1.1e9, "runs": 1.1e9}


def test_training_sets_are_fetched_when_they_are_opened(machine: Make) -> None:
    a, b, c = machine("a"), machine("b"), machine("c")
    a.write(training_sets__s__data="1", training_sets__t__data="2", x="1")
    with b.work() as home:
        assert files_of(home) == {"x": "1"}
        assert sorted(path.name for path in (home / "training_sets").iterdir()) == ["s", "t"]
        write(home, x="2")
    session = b.begin()
    session.fetch("training_sets/s")
    session.fetch("training_sets/unknown")
    assert files_of(b.home) == {"training_sets/s/data": "1", "x": "2"}
    session.push()
    with c.work() as home:
        (home / "training_sets/t").rmdir()  # as `mmlora gc` does with one that it hasn't fetched
    assert b.seen() == {"training_sets/s/data": "1", "x": "2"}
    assert not (b.home / "training_sets/t").exists()
    assert a.seen() == {"training_sets/s/data": "1", "x": "2"}
    with c.work() as home:
        (home / "training_sets/s").rmdir()
    assert a.seen() == b.seen() == {"x": "2"}


def test_a_workspace_that_was_never_shared_is_shared_as_it_is(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    whole = {"offline/rows": "1", "training_sets/s/data": "1", "runs/r": "1"}
    write(a.home, **{name.replace("/", "__"): text for name, text in whole.items()})
    write(b.home, other="1")
    assert a.seen() == whole
    assert files_of(a.home) == whole
    with pytest.raises(UsageError):
        b.seen()
    assert files_of(b.home) == {"other": "1"}
    c = machine("c")
    session = c.begin()
    session.fetch("training_sets/s")
    assert files_of(c.home) == whole


def test_a_place_that_lost_its_versions_takes_nothing_from_a_machine(machine: Make, url: str) -> None:
    a = machine("a")
    a.write(offline__rows="1")
    filesystem, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    filesystem.rm(root, recursive=True)
    with pytest.raises(DataError, match="newest version is 0, but version 1 was pulled here"):
        a.seen()
    assert files_of(a.home) == {"offline/rows": "1"}


def test_a_home_with_other_files_is_refused(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="1", y="1")
    write(b.home, x="1", other="1")
    with pytest.raises(UsageError, match=r"doesn't have: other; set MMLORA_HOME to an empty folder"):
        b.seen()
    (b.home / "other").unlink()
    assert b.seen() == {"x": "1", "y": "1"}, "a copy of the workspace is taken over"


def test_files_that_a_user_writes_between_commands_are_shared(machine: Make) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="1")
    b.seen()
    write(b.home, feature_repo__views="mine")
    a.write(x="2")
    assert b.seen() == {"x": "2", "feature_repo/views": "mine"}
    assert a.seen() == {"x": "2", "feature_repo/views": "mine"}


def _damage(url: str, text: str, other: bytes | None) -> str:
    filesystem, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    for path in filesystem.find(f"{root}/objects"):
        if filesystem.cat_file(path) == text.encode():
            filesystem.rm_file(path)
            if other is not None:
                filesystem.pipe_file(path, other)
            return str(path.rpartition("/")[2])
    raise AssertionError(f"no object is {text!r}")


@pytest.mark.parametrize(("other", "what"), [(b"FINE!", "holds other bytes"), (None, "does not exist")])
def test_a_damaged_object_is_refused(machine: Make, url: str, other: bytes | None, what: str) -> None:
    a, b = machine("a"), machine("b")
    a.write(runs__r="fine?", x="1", training_sets__s__data="rows.")
    b.seen()
    a.write(y="other", runs__q="fine!")
    name = _damage(url, "fine!", other)
    with pytest.raises(
        DataError, match=rf"objects/{name}: {what}.*it is runs/q of the workspace: copy that file"
    ):
        b.seen()
    assert not (b.home / "runs/q").exists()
    filesystem, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    filesystem.put_file(str(a.home / "runs/q"), f"{root}/objects/{name}")
    assert b.seen()["runs/q"] == "fine!"
    name = _damage(url, "rows.", None if other is None else b"ROWS.")
    session = b.begin()
    with pytest.raises(DataError, match=rf"objects/{name}: {what}"):
        session.fetch("training_sets/s")


def test_sweeping_frees_what_only_old_versions_have(machine: Make, url: str) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="first", y="stays")
    a.write(x="second")
    a.write(x="third")
    Remote(url).upload({"0" * 64: a.home / "y"})  # of a push that was killed
    fresh = Session(a.home, url).sweep(dry_run=False)
    assert (fresh.versions, fresh.objects) == (0, 0), "a pull or a push may need them yet"
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    planned = Remote(url).sweep(tomorrow, dry_run=True)
    assert (planned.versions, planned.objects, planned.object_bytes) == (2, 3, len("firstsecondstays"))
    assert Remote(url).sweep(tomorrow) == planned
    assert Remote(url).sweep(tomorrow).objects == 0
    assert b.seen() == {"x": "third", "y": "stays"}
    b.write(x="fourth")
    assert a.seen()["x"] == "fourth"


def _contents(url: str) -> set[bytes]:
    filesystem, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    return {filesystem.cat_file(path) for path in filesystem.find(f"{root}/objects")}


def test_an_erasure_leaves_nothing_and_nobody_brings_it_back(machine: Make, url: str) -> None:
    a, b, c = machine("a"), machine("b"), machine("c")
    a.write(offline__rows="u01 u02", x="1", training_sets__s__data="u01")
    training, reading = b.begin(), c.begin()
    own = {"staging__load__.part-1.partial": "u01", "training_sets__.features__f": "u01"}
    write(b.home, staging__load__part="u01", **own)
    write(c.home, feature_repo__views="mine")
    erasing = a.begin()
    write(a.home, offline__rows="u02")
    (a.home / "training_sets/s/data").unlink()
    (a.home / "training_sets/s").rmdir()
    erasing.push(erase=True)
    assert _contents(url) == {b"u02", b"1"}
    with pytest.raises(TransientError, match="users were erased"):
        training.push()
    with pytest.raises(TransientError, match="users were erased"):
        reading.push(unfinished=True)
    assert b.seen() == {"offline/rows": "u02", "x": "1"} == files_of(b.home)
    assert c.seen() == {"offline/rows": "u02", "x": "1", "feature_repo/views": "mine"}
    assert b"u01" not in _contents(url)


def test_an_erasure_keeps_what_others_share_after_it(machine: Make, url: str) -> None:
    a, b = machine("a"), machine("b")
    a.write(x="u01")
    erasing = a.begin()
    write(a.home, x="")
    original = Remote.forget

    def slowly(self: Remote, number: int) -> None:
        time.sleep(1.1)  # S3's times are whole seconds
        b.write(y="new")
        original(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remote, "forget", slowly)
        erasing.push(erase=True)
    assert machine("c").seen() == {"x": "", "y": "new"}


def test_a_place_that_cannot_be_used_is_told(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no such bucket"):
        Machine(tmp_path, "s3://nobody-has-this/x").seen()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessError, match="credentials"):
        Machine(tmp_path, s3_url).seen()


def test_a_store_that_overwrites_is_refused(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Remote._create

    def overwriting(self: Remote, path: str, content: bytes) -> bool:
        self._files.pipe_file(path, content)
        return True

    monkeypatch.setattr(Remote, "_create", overwriting)
    with pytest.raises(UsageError, match="If-None-Match"):
        Machine(tmp_path, s3_url).write(x="1")
    monkeypatch.setattr(Remote, "_create", original)
    assert Remote(s3_url).newest_number() == 0


def test_commands_in_one_home_run_one_after_the_other(machine: Make) -> None:
    from tests.faults import run_all

    a = machine("a")
    a.write(log="")

    def append() -> None:
        with Machine(a.home, a.url).work() as home:
            text = (home / "log").read_text()
            time.sleep(0.2)
            (home / "log").write_text(text + "x")

    if a.url.startswith("file:"):  # a process that has talked to S3 must not be forked
        run_all([append] * 3)
        assert a.seen() == {"log": "xxx"}
