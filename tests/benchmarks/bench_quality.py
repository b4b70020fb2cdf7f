"""Scores beside what a user would pick instead, on made-up worlds and on real rows: prints Markdown tables.

``shop``: for each seed a fresh workspace goes the documented path by the command line with default settings
(init, data shop, features build, validate, train, score of the next day's pairs and of the night's lists).
Everyone is judged on the next day's rows, which nobody has seen, and lists by the true CTR of their first
20 items on that day (contenders other than mmlora: of some users of each market, because they would take
hours for all).

``themes``: made-up domains that differ in how they match given vectors, the same way.

``alike``: domains that don't differ, where an expert has nothing to learn: how many experts are kept.

``movielens`` (by occupation, time split, all features) and ``ciao`` (by category; only with ``--ciao``, the
file rating_with_timestamp.mat) are judged on the test rows of their training, beside the baselines that
``mmlora train`` compares itself with.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from quality_figures import Figures, markdown, means
from quality_worlds import MADE, REAL

WORLDS = (*MADE, *REAL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the made-up worlds")
    parser.add_argument("--scale", type=float, default=1.0, help="of the made-up worlds")
    parser.add_argument(
        "--world", choices=WORLDS, nargs="+", default=list(WORLDS), help="which tables to print"
    )
    parser.add_argument("--only", nargs="+", help="contenders whose names begin so, e.g. mmlora LightGBM")
    parser.add_argument(
        "--users", type=int, default=50, help="users a market whose lists other contenders rank"
    )
    parser.add_argument(
        "--movielens", type=Path, help="GroupLens's ml-1m.zip or folder, instead of fetching it"
    )
    parser.add_argument(
        "--ciao", type=Path, help="rating_with_timestamp.mat; without it there is no table of Ciao"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the workspaces, instead of a temporary one")
    options = parser.parse_args()
    only = tuple(name.lower() for name in options.only or [""])
    options.wants = lambda name: name.lower().startswith(only)
    with tempfile.TemporaryDirectory() as temporary:
        for world in options.world:
            if world == "ciao" and options.ciao is None:
                continue
            _print_world(world, options.keep or Path(temporary), options)


def _print_world(world: str, folder: Path, options: argparse.Namespace) -> None:
    lines: list[Figures] = []
    if world in MADE:
        runs = [MADE[world](folder / f"{world}-{seed}", seed, options) for seed in options.seeds]
    else:
        runs = [REAL[world](folder / world, options)]
    for run in runs:
        for line in run:
            print(" ".join(line.cells()), file=sys.stderr, flush=True)
            lines.append(line)
    print(f"\n## {world}\n\n{markdown([*lines, *means(lines)])}", flush=True)


if __name__ == "__main__":
    main()
