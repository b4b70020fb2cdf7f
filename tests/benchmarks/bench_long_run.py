"""Sixty nights of twenty domains with readers polling and ``gc`` after each night: prints a Markdown table.

Made-up domains; a model is trained once, and each night scores and publishes all domains, then frees what the
retention of ten days no longer keeps. Meanwhile a process reads every domain over and over and checks what it
gets: one load per domain and date, all of its rows, and never an older date than before. Every third night is
scored twice, so that there are replaced loads to free. What should stay flat once the retention is reached:
the warehouse's and the workspace's size, the rows, the time of a read and of a night, and the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import sqlalchemy as sa

FIRST = date(2020, 1, 1)
BEFORE = 20  # days of history before the first night
KEEP_DAYS = 10
PAUSE = 0.02  # seconds between two reads
SEEN = """
SELECT s.domain_id, s.score_date, s.load_id, l.rows, count(*)
FROM scores_latest s JOIN score_loads l ON l.load_id = s.load_id
GROUP BY s.domain_id, s.score_date, s.load_id, l.rows
"""
OF_A_USER = "SELECT item_id, score FROM scores_latest WHERE domain_id = :domain AND user_id = :user"


def read(until: Path, report: Path) -> None:
    """Poll until a file appears; write how many reads there were, and each that was wrong."""
    from mmlora.workspace import open_workspace

    newest: dict[str, str] = {}
    wrong: list[str] = []
    reads = 0
    with open_workspace().open_warehouse() as warehouse:
        while not until.exists():
            with warehouse.database.reading() as connection:
                rows = connection.execute(sa.text(SEEN)).all()
            reads += 1
            domains = [row[0] for row in rows]
            if len(set(domains)) < len(domains) or not set(newest) <= set(domains):
                wrong.append(f"domains {domains}")
            for domain, on, load_id, whole, found in rows:
                if whole != found or str(on) < newest.get(domain, ""):
                    wrong.append(f"{domain} {on} {load_id}: {found} of {whole} rows")
                newest[domain] = str(on)
            time.sleep(PAUSE)
    report.write_text(json.dumps({"reads": reads, "wrong": wrong}))


@contextmanager
def reading(folder: Path) -> Iterator[Path]:
    """Run a reader in a process of its own, and wait for its report at the end."""
    until, report = folder / "stop", folder / "report.json"
    command = [sys.executable, __file__, "--read", str(until), str(report)]
    with subprocess.Popen(command) as reader:
        try:
            yield report
        finally:
            until.touch()
            reader.wait(timeout=120)


@dataclass(frozen=True)
class Figures:
    """The state after a night."""

    night: int
    seconds: float
    gc_seconds: float
    warehouse_mb: float
    workspace_mb: float
    rows: int
    read_ms: float
    memory_mb: float

    def cells(self) -> list[str]:
        return [
            f"{self.night}",
            *(
                f"{value:.1f}"
                for value in (self.seconds, self.gc_seconds, self.warehouse_mb, self.workspace_mb)
            ),
            f"{self.rows:,}",
            f"{self.read_ms:.2f}",
            f"{self.memory_mb:.0f}",
        ]


def prepare(options: argparse.Namespace) -> None:
    from mmlora.pipeline.data import import_synthetic
    from mmlora.pipeline.train import train

    import_synthetic(
        domains=options.domains,
        users=options.users,
        items=options.items,
        rows=options.rows,
        days=BEFORE + options.nights,
        sparsity=0.3,
    )
    train(FIRST + timedelta(days=BEFORE), adaptation="none")


def night(number: int, on: date) -> Figures:
    from mmlora.pipeline.gc import gc
    from mmlora.pipeline.score import score_and_publish

    began = time.perf_counter()
    for _ in range(2 if number % 3 == 0 else 1):
        outcome = score_and_publish(on)
        assert all(load.state == "published" for load in outcome.loads), outcome.loads
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    gc(keep_days=KEEP_DAYS, keep_loads=1)
    return measured(number, seconds, time.perf_counter() - began)


def measured(number: int, seconds: float, gc_seconds: float) -> Figures:
    from mmlora.workspace import open_workspace

    home = Path(os.environ["MMLORA_HOME"])
    with open_workspace().open_warehouse() as warehouse, warehouse.database.reading() as connection:
        rows = connection.execute(sa.text("SELECT count(*) FROM scores")).scalar_one()
        pairs = connection.execute(sa.text("SELECT domain_id, user_id FROM scores_latest LIMIT 400")).all()
        times = []
        for domain, user in pairs[::4]:
            began = time.perf_counter()
            connection.execute(sa.text(OF_A_USER), {"domain": domain, "user": user}).all()
            times.append(time.perf_counter() - began)
    files = [file for file in home.rglob("*") if file.is_file()]
    database = sum(file.stat().st_size for file in home.glob("warehouse.db*"))
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Figures(
        number,
        seconds,
        gc_seconds,
        database / 1e6,
        sum(file.stat().st_size for file in files) / 1e6,
        int(rows),
        1000 * statistics.median(times),
        memory / 1e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=20)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rows", type=int, default=80_000)
    parser.add_argument("--every", type=int, default=5, help="nights per line of the table")
    parser.add_argument("--read", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(*options.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MMLORA_HOME"] = str(Path(folder, "var"))
        prepare(options)
        print(
            "| night | seconds | gc, s | warehouse, MB | workspace, MB | rows "
            "| a user's list, ms | memory, MB |"
        )
        print("|---|---|---|---|---|---|---|---|")
        with reading(Path(folder)) as report:
            for number in range(1, options.nights + 1):
                figures = night(number, FIRST + timedelta(days=BEFORE + number))
                if number == 1 or number % options.every == 0:
                    print("|", " | ".join(figures.cells()), "|", flush=True)
        seen = json.loads(report.read_text())
        print(f"\n{seen['reads']:,} reads of all domains, {len(seen['wrong'])} wrong: {seen['wrong'][:3]}")


if __name__ == "__main__":
    main()
