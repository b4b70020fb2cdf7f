"""Scoring: forward passes beside each other and the machine's limit, and growth with pairs; Markdown tables.

Every block is one thread's own, as in scoring. The ways of one row of the first table take turns, so that a
slow minute of the machine is no one's; figures are medians. Of the growth, each size is a process of its own,
which samples its anonymous memory. To 1,000M pairs:
``make bench BENCH=scoring ARGS="--only growth --pairs 1 10 100 1000"``.
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
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from bench_memory import anonymous, peak_of
from scoring_competitors import INPUTS, NAMES, PRODUCT_FLOPS, Forward, flops, forwards, make_model, product

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.encoding import Encoder
from mmlora.errors import UsageError
from mmlora.models.builder import build_model
from mmlora.models.calibration import Calibration
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.schema import FeatureContract, FeatureField, IdTypes
from mmlora.scoring.devices import require_precision
from mmlora.scoring.score import LocalEngine, SideFeatures, Staged, score_candidates
from mmlora.scoring.workers import ParallelMap, workers

EIGHT = ["wdl", "nfm", "autoint", "pnn", "deepfm", "dcn", "xdeepfm", "fibinet"]
ITEMS, TOP_K = 5_000, 100
Rates = dict[str, float]


def rates(ways: Mapping[str, Forward], run: ParallelMap, threads: int, repeats: int) -> Rates:
    """Return rows a second of each way: medians of turns of 40 ms or a block a thread, whichever is more."""

    @torch.inference_mode()
    def seconds(way: Forward, blocks: int) -> float:
        began = time.perf_counter()
        list(run(lambda _: way.block(), range(blocks)))
        return time.perf_counter() - began

    blocks = {}
    for name, way in ways.items():
        seconds(way, threads)
        blocks[name] = threads * max(1, round(0.04 / seconds(way, threads)))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(repeats), ways.items()):
        taken[name].append(seconds(way, blocks[name]))
    return {name: blocks[name] * way.rows / statistics.median(taken[name]) for name, way in ways.items()}


def forward_table(asked: argparse.Namespace, run: ParallelMap, names: tuple[str, ...]) -> None:
    precisions = {"side plans": "float32", "bfloat16": "bfloat16"}
    limits = {name: precision for name, precision in precisions.items() if name in names}
    products = {name: product(precision) for name, precision in limits.items()}
    print(
        "\nForward pass, pairs a second (and over the loop's); the limit: matrix products and nothing else.\n"
    )
    columns = ("backbone", "input", "experts", *names, *(f"{name} of limit" for name in limits))
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for backbone, width, experts in itertools.product(asked.backbones, asked.inputs, asked.experts):
        ways = forwards(make_model(backbone, width, experts), width, names)
        products_too = {f"limit {name}": way for name, way in products.items()}
        found = rates({**ways, **products_too}, run, asked.threads, asked.repeats)
        cells = [f"{found[name] / 1e3:,.0f}k ({found[name] / found['loop']:.1f}x)" for name in names]
        # float32's count: a cast of bfloat16 takes other names, which are not counted twice.
        operations = flops(ways["side plans"])
        for name in limits:
            limit = found[f"limit {name}"] * PRODUCT_FLOPS / operations if operations else float("inf")
            cells.append(f"{found[name] / limit:.0%} of {limit / 1e3:,.0f}k")
        print(f"| {backbone} | {width} | {experts} | {' | '.join(cells)} |", flush=True)


def folding_table(asked: argparse.Namespace, run: ParallelMap) -> None:
    print("\nSide plans, pairs a second: what is left of 20 experts behind a gate of the domain.\n")
    print("| backbone | input | none | moe_mlora, 20 experts | ratio |\n|---|---|---|---|---|")
    for backbone, width in itertools.product(asked.backbones, asked.inputs):
        ways = {
            f"{experts}": forwards(make_model(backbone, width, experts), width, ("side plans",))["side plans"]
            for experts in (0, 20)
        }
        found = rates(ways, run, asked.threads, 3 * asked.repeats)
        plain, mixed = found["0"], found["20"]
        print(
            f"| {backbone} | {width} | {plain / 1e3:,.0f}k | {mixed / 1e3:,.0f}k | {mixed / plain:.2f} |",
            flush=True,
        )


def score_made_up(pairs: int, threads: int, memory: int, folder: Path) -> tuple[Staged, int, int]:
    """Score so many pairs with WDL and keep 100 a user -> what was staged, MB before and at the peak."""
    users, items = pa.array(range(max(1, pairs // ITEMS))), pa.array(range(ITEMS))
    draw = np.random.default_rng(0)
    fields = tuple(FeatureField(name, "", (name,), "INT64", "categorical") for name in ("user_id", "item_id"))
    fields += tuple(FeatureField(f"{side}__{n}", side, (f"{side}_id",), "INT64", "categorical")
                    for side in ("user", "item") for n in range(4))  # fmt: skip

    def side(ids: pa.Array, name: str) -> pa.Table:
        table = pa.table({f"{name}_id": ids})
        for number in range(4):
            table = table.append_column(f"{name}__{number}", pa.array(draw.integers(0, 50, len(ids))))
        return table

    features = SideFeatures(side(users, "user"), side(items, "item"), pa.table({"domain_id": ["made up"]}))
    rows = min(len(users), ITEMS)
    known = features.users.slice(0, rows)
    for column in features.items.slice(0, rows).column_names:
        known = known.append_column(column, features.items.slice(0, rows).column(column))
    encoder = Encoder.fit(
        FeatureContract("", fields),
        known.append_column("domain_id", pa.array(["made up"] * rows)),
        domains=["made up"],
    )
    shapes = tuple(FieldShape(*shape) for shape in encoder.field_shapes())
    torch.manual_seed(0)
    model = build_model(ModelSpec("wdl", "none", shapes, 1, crosses=False)).eval()
    candidates = Candidates(
        users, items, PairIndex(np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int64))
    )
    before = anonymous()
    staged, peak = peak_of(
        lambda: score_candidates(
            candidates,
            model=model,
            encoder=encoder,
            calibration=Calibration(1.0, 0.0, (0.0,)),
            features=features,
            ids=IdTypes(),
            domain="made up",
            on=date(2026, 1, 1),
            folder=folder / "load",
            top_k=TOP_K,
            block_rows=16384,
            engine=LocalEngine(threads, "cpu", memory << 20),
        )
    )
    return staged, before, peak


def growth_table(asked: argparse.Namespace) -> None:
    print(
        f"\nGrowth: WDL of 10 fields, users x {ITEMS:,} items, the best {TOP_K} a user staged, a chunk of "
        f"{asked.memory} MB.\n"
    )
    print(
        "| pairs | s | pairs/s | s a pair / the first's | peak MB | of that while scoring | / the first's |"
    )
    print("|---|---|---|---|---|---|---|")
    sizes, found = [round(millions * 1e6) for millions in asked.pairs], []
    for pairs in sizes:
        answers = []
        for _ in range(asked.growth_repeats):
            command = [sys.executable, __file__, "--one", str(pairs), "--threads", str(asked.threads)]
            done = subprocess.run(
                [*command, "--memory", str(asked.memory)], check=True, capture_output=True, text=True
            )
            answers.append(json.loads(done.stdout.strip().rpartition("\n")[2]))
        middle = {what: statistics.median(one[what] for one in answers) for what in answers[0]}
        found.append(middle)
        first, added = found[0], middle["peak"] - middle["before"]
        print(
            f"| {pairs / 1e6:,.0f}M | {middle['seconds']:.1f} | {pairs / middle['seconds']:,.0f} "
            f"| {middle['seconds'] / pairs / (first['seconds'] / sizes[0]):.2f} | {middle['peak']:,.0f} "
            f"| {added:,.0f} | {added / max(1, first['peak'] - first['before']):.2f} |",
            flush=True,
        )
    if len(found) > 1:
        seconds = np.array([one["seconds"] for one in found])
        # Each size counts alike, so the line is fitted to relative errors.
        design = np.stack([np.ones(len(sizes)), np.array(sizes) / 1e6], 1)
        line = np.linalg.lstsq(design / seconds[:, None], np.ones(len(sizes)), rcond=None)[0]
        off = np.abs(design @ line / seconds - 1).max()
        print(
            f"\nA straight line: {line[0]:.2f} s + {line[1]:.3f} s a million pairs, off by {off:.0%} at most."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["forward", "folding", "growth"])
    parser.add_argument("--backbones", nargs="+", default=EIGHT)
    parser.add_argument("--inputs", nargs="+", type=int, choices=list(INPUTS), default=list(INPUTS))
    parser.add_argument("--experts", nargs="+", type=int, default=[2, 7, 20])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", nargs="+", type=float, default=[1, 10, 100], help="millions")
    parser.add_argument("--growth-repeats", type=int, default=1)
    parser.add_argument("--memory", type=int, default=128, help="MB of a chunk")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        with tempfile.TemporaryDirectory() as folder:
            staged, before, peak = score_made_up(asked.one, asked.threads, asked.memory, Path(folder))
        print(json.dumps({"seconds": staged.seconds, "before": before, "peak": peak}))
        return
    names = NAMES
    try:
        require_precision("bfloat16", "cpu")
    except UsageError as error:
        names = NAMES[:-1]
        print(f"bfloat16 is left out: {error}")
    print(f"{os.cpu_count()} cores, {asked.threads} threads, medians of {asked.repeats}, made-up data.")
    with workers(asked.threads) as run:
        if asked.only in (None, "forward"):
            forward_table(asked, run, names)
        if asked.only in (None, "folding"):
            folding_table(asked, run)
    if asked.only in (None, "growth"):
        growth_table(asked)


if __name__ == "__main__":
    main()
