"""Training throughput beside other libraries, on MovieLens-1M: prints a Markdown table.

Every epoch is a process of its own, and the libraries take turns, so that a slow minute of the machine is no
one library's; the figures are medians. A peer that isn't installed is left out and named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("training_competitors.py")
OURS = ("mmlora", "mmlora bfloat16")
PEERS = ("DeepCTR-Torch", "FuxiCTR", "torch-rechub")


def make_data(workspace: Path, movielens: Path | None) -> tuple[Path, int]:
    """Make the training set of ids, by gender, and the same training rows as plain columns for the peers."""
    os.environ["MMLORA_HOME"] = str(workspace)
    os.environ["MMLORA_CHECKS__WINDOW_DAYS"] = "2000"
    from mmlora.pipeline.data import import_movielens
    from mmlora.runs.steps import prepare
    from mmlora.runs.training_run import data_of, open_run

    import_movielens(domain_by="gender", path=movielens)
    data = data_of(*open_run(prepare(date(2003, 3, 1), features="ids", split="random", adaptation="none")))
    rows = data.rows("train")
    batch = data.batch(rows)
    assert batch.label is not None
    names = [field.name for field in data.manifest.contract.fields if field.kind == "categorical"]
    columns = dict(zip(names, batch.categorical.numpy().T, strict=True))
    np.savez(data.path / "bench.npz", label=batch.label.numpy(), **columns)
    return data.path, len(rows)


def seconds(name: str, options: list[str]) -> float | str:
    """Time one epoch in a process of its own; return what is missing where it can't run."""
    threads = options[options.index("--threads") + 1]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(WORKER), name, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return done.stderr.strip().rpartition("\n")[2]
    answer = json.loads(done.stdout.strip().rpartition("\n")[2])
    return answer.get("missing") or float(answer["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movielens", type=Path, help="MovieLens-1M, where it isn't to be fetched")
    parser.add_argument("--models", nargs="+", default=["wdl", "deepfm"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1024, 8192])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, help="train on the first rows only")
    asked = parser.parse_args()
    names, missing = (*OURS, *PEERS), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        path, found = make_data(Path(folder), asked.movielens)
        rows = min(found, asked.rows or found)
        print(f"{rows:,} rows, {asked.threads} threads, medians of {asked.repeats} epochs, rows a second:\n")
        print("| model, batch | library | rows/s | spread | mmlora is |\n|---|---|---|---|---|")
        for model, batch in itertools.product(asked.models, asked.batches):
            options = ["--data", str(path), "--model", model, "--batch", str(batch)]
            options += ["--threads", str(asked.threads), "--rows", str(rows)]
            times: dict[str, list[float]] = {name: [] for name in names}
            for _, name in itertools.product(range(asked.repeats), names):
                if name in missing:
                    continue
                result = seconds(name, options)
                if isinstance(result, str):
                    missing[name] = result
                else:
                    times[name].append(result)
            ours = statistics.median(times["mmlora"])
            for name, taken in ((name, taken) for name, taken in times.items() if taken):
                middle = statistics.median(taken)
                spread = f"{rows / max(taken) / 1e3:.0f}-{rows / min(taken) / 1e3:.0f}k"
                ratio = f"{middle / ours:.2f}x"
                print(f"| {model}, {batch} | {name} | {rows / middle / 1e3:.0f}k | {spread} | {ratio} |")
    for name, why in missing.items():
        print(f"\n{name} was left out: {why}")


if __name__ == "__main__":
    main()
