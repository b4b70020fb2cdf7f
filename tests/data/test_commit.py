"""An import that is killed, wherever it is, either happened or did not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

# Forks a child that dies (os._exit, as by SIGKILL: nothing is cleaned up) at its n-th touch of the file
# system, for every n until one survives; Python's audit events see each open, mkdir, rename and remove
# under the store.
RUNNER = r'''
import json, os, shutil, sys
from datetime import datetime, timedelta, UTC
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.data.store import OfflineStore
from mmlora.files import ASIDE

root = Path(sys.argv[1])
NOW = datetime(2024, 2, 1, tzinfo=UTC)
IMPORT_TIMES = {"known_at", "created_timestamp", "event_timestamp"}
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def table(rows):
    names = ["user_id", "item_id", "domain_id", "event_timestamp", "label"]
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


OLD = (table([(1, 1, "x", "2024-01-01", 0), (2, 1, "x", "2024-01-02", 0)]),
       {"user": pa.table({"user_id": [1], "age": [30]})})
NEW = (table([(1, 1, "x", "2024-01-01", 1), (3, 1, "x", "2024-01-01", 1), (3, 1, "x", "2024-01-03", 1)]),
       {"user": pa.table({"user_id": [1, 2], "age": [31, 40], "city": ["Rome", None]})})


def in_child(action):
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def write(where, tables, when, die_at=None):
    touched = 0

    def hook(event, args):
        nonlocal touched
        # What rmtree removes is named relative to its folder.
        if event in TOUCHES and (str(where) in str(args[0]) or event in {"os.remove", "os.rmdir"}):
            touched += 1
            if touched == die_at:
                os._exit(9)

    if die_at:
        sys.addaudithook(hook)
    OfflineStore(where).write(*tables, imported_at=when)


def rows(where, table):
    """A table's rows as a reader sees them that knows nothing of commits, without the times of import."""
    files = [pq.ParquetFile(file).read() for file in where.glob(f"{table}/**/*.parquet")]
    found = [row for file in files for row in file.to_pylist()]
    return sorted(str({k: v for k, v in row.items() if k not in IMPORT_TIMES}) for row in found)


def state(where):
    """The store as its methods give it."""
    store = OfflineStore(where)
    data = {"days": [str(day) for day in store.days()], "fingerprint": store.fingerprint()}
    data["domains"] = store.domains()
    return {**data, "interactions": rows(where, "interactions"), "users": rows(where, "profiles/user")}


def told(action):
    """What an action in a child returns."""
    out = root / "out.json"
    assert in_child(lambda: out.write_text(json.dumps(action()))) == 0
    return json.loads(out.read_text())


def after_the_kill(where, tables, when):
    rows(where, "interactions")  # each file is whole
    rows(where, "profiles")
    found = state(where)
    write(where, tables, when)
    left = {path.name for path in where.iterdir() if not path.name.endswith(ASIDE)}
    left -= {".lock", ".verified.json"}
    assert left == {"domains.json", "ids.json", "interactions", "manifest.json", "profiles"}, left
    return [found, state(where)]


def kill_everywhere(name, start, tables, stride):
    when = NOW + timedelta(hours=1)
    before = told(lambda: state(start))
    goal = root / f"{name}-goal"
    if start.exists():
        shutil.copytree(start, goal)
    assert in_child(lambda: write(goal, tables, when)) == 0
    after = told(lambda: state(goal))
    assert after != before
    outcomes = []
    for step in range(1, 300, stride):
        where = root / f"{name}-{step}"
        if start.exists():
            shutil.copytree(start, where)
        code = in_child(lambda: write(where, tables, when, die_at=step))
        found, again = told(lambda: after_the_kill(where, tables, when))
        assert found in (before, after), (step, found)
        assert again == after, (step, again)
        outcomes.append(found == after)
        if code == 0:
            break
        assert code == 9
    assert code == 0, "more steps than were tried"
    assert outcomes == sorted(outcomes), "once committed, always committed"
    return outcomes


stride = int(sys.argv[2])
report = {"first": kill_everywhere("first", root / "nothing", OLD, stride)}
assert in_child(lambda: write(root / "old", OLD, NOW)) == 0
report["second"] = kill_everywhere("second", root / "old", NEW, stride)
print(json.dumps(report))
'''


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_the_import_happened_or_did_not(tmp_path: Path, stride: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(tmp_path), str(stride)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for outcomes in json.loads(done.stdout).values():
        assert outcomes[0] is False  # killed at the first touch, nothing happened
        # Killed after the commit, it has happened: whoever opens the store next finishes it.
        assert outcomes.count(True) > 8 // stride
        assert len(outcomes) > 30 // stride
