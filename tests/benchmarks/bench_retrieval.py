"""Point-in-time retrieval beside Feast's own stores and a hand-written query: prints a Markdown table.

Every answer is given by a process of its own (``retrieval_competitors.py``), and the competitors take turns,
so that a slow minute of the machine is no one's; the figures are medians. Each process first answers 100
rows, so that imports count for nobody. Answers are compared: all but the file store's, which has no
cutoff on the created time, must have the same sums and nulls.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("retrieval_competitors.py")
NAMES = ("Feast duckdb", "Feast file", "by hand", "by hand, ordered", "ours", "ours, streamed")
FILE_STORE_ROWS = 100_000
"""The most that the file store is asked: it takes minutes for a million rows, and loses some."""


def answer(name: str, folder: Path, rows: int) -> dict[str, Any]:
    """Ask one competitor in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FEAST_USAGE": "false"}
    done = subprocess.run(
        [sys.executable, str(WORKER), name, str(folder), str(rows)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{name} of {rows:,} rows failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two answers have the same rows, nulls and, but for the order of adding, sums."""
    pairs = zip(found["sums"], wanted["sums"], strict=True)
    return found["rows"] == wanted["rows"] and all(abs(a - b) <= 1e-6 * max(1, abs(b)) for a, b in pairs)


def table(rows: int, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the Markdown rows of one size."""

    def median(name: str, what: str) -> float:
        return statistics.median(one[what] for one in found[name])

    lines = []
    for name, answers in found.items():
        added = statistics.median(one["peak"] - one["before"] for one in answers)
        cells = [
            f"{rows:,}",
            name,
            f"{median(name, 'seconds'):.2f}",
            f"{median(name, 'seconds') / median('ours', 'seconds'):.2f}",
            f"{median(name, 'cpu'):.2f}",
            f"{median(name, 'cpu') / median('ours', 'cpu'):.2f}",
            f"{median(name, 'peak') / 2**20:,.0f}",
            f"{added / 2**20:,.0f}",
            f"{answers[0]['rows']:,}{'' if all(one['ordered'] for one in answers) else ', other order'}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--competitors", nargs="+", choices=NAMES, default=list(NAMES))
    asked = parser.parse_args()
    print("| rows asked | | s | / ours | CPU s | / ours | peak MiB | added MiB | rows back |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = [str(rows) for rows in asked.rows]
        # In a process of its own, for this one's memory to stay small beside its children's.
        subprocess.run([sys.executable, str(WORKER), "data", name, *sizes], check=True)
        for rows in asked.rows:
            found: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for _ in range(asked.repeats):
                for competitor in asked.competitors:
                    if competitor != "Feast file" or rows <= FILE_STORE_ROWS:
                        found[competitor].append(answer(competitor, folder, rows))
            for competitor, answers in found.items():
                if competitor != "Feast file" and not all(same(one, found["ours"][0]) for one in answers):
                    raise SystemExit(f"{competitor} answers {rows:,} rows otherwise than ours")
            print("\n".join(table(rows, found)), flush=True)


if __name__ == "__main__":
    main()
