"""The worlds of ``bench_quality.py``: each yields a line a contender."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from quality_competitors import MODELS, Columns, Rows, fit
from quality_figures import FIRST, Figures, judge_rows, sampled_lists
from quality_mmlora import Session, scores_of
from quality_themes import ThemeRows

from mmlora.data.shop_truth import ShopTruth
from mmlora.data.synthetic import Dials

OURS, TRUTH = "mmlora", "truth"
THEMES = Dials(users=20_000, items=5_000, rows=450_000, days=30, vectors=32)
ALIKE = {"domains": 10, "users": 2000, "items": 500, "rows": 100_000, "diversity": 0.0, "sparsity": 0.3}
MOVIELENS_AS_OF = "2000-12-30"
CIAO_WINDOW_DAYS = "5000"


def shop(folder: Path, seed: int, options: argparse.Namespace) -> Iterator[Figures]:
    """Yield a line a contender for one shop."""
    session = Session(folder)
    imported = session("data", "shop", "--seed", seed, "--scale", options.scale)
    truth = ShopTruth.open(session.home / "shop")
    late = truth.impressions.day == truth.dials.days
    rows, label = Rows.of(truth.impressions, late), truth.impressions.label[late]
    true = truth.impressions.probability[late]

    def line(name: str, score: Any, keep: Any = slice(None), **figures: Any) -> Figures:
        judged = judge_rows(label[keep], score[keep], rows.market[keep], true[keep])
        return Figures(name, seed, **judged, **figures)

    columns, models = Columns(session.home / "shop"), [name for name in MODELS if options.wants(name)]
    for name in models:
        begun = time.monotonic()
        try:
            score = fit(name, truth, columns)
        except ImportError as error:
            yield Figures(name, seed, None, note=f"left out: {error}")
            continue
        seconds = time.monotonic() - begun
        lists = sampled_lists(truth, score, options.users, np.random.default_rng(0))
        note = f"lists of {options.users} users a market"
        shown = {"of_best": lists.of_best, "same_first": lists.same_first, "note": note}
        yield line(name, score(rows), seconds=seconds, **shown)
    if options.wants(TRUTH):
        yield line(TRUTH, true, of_best=1.0)
    if options.wants(OURS):
        as_of = imported["as_of"]
        session.train(as_of)
        pairs = session.scores(as_of, "--pairs", imported["next_day"], "--top-k", 0)
        score = scores_of(pq.read_table(imported["next_day"]), pairs).to_numpy()
        scored = ~np.isnan(score)
        lists = truth.judge_lists(session.scores(as_of), FIRST)[-1]
        note = f"{scored.sum():,} of {len(score):,} rows scored; lists of {lists.users:,} users"
        shown = {"of_best": lists.of_best, "same_first": lists.same_first, "note": note}
        yield line(OURS, score, scored, seconds=session.training_seconds, **shown)


def themes(folder: Path, seed: int, options: argparse.Namespace) -> Iterator[Figures]:
    """Yield a line a contender for one world of themes."""
    session, dials = Session(folder), replace(THEMES, rows=int(THEMES.rows * options.scale), seed=seed)
    rows, names = ThemeRows.make(dials), ("vectors", "users", "items", "rows", "days", "seed")
    label, domain, true = (part[rows.late] for part in (rows.label, rows.domain, rows.probability))

    def line(name: str, score: Any, **figures: Any) -> Figures:
        return Figures(name, seed, **judge_rows(label, score, domain, true), **figures)

    contenders: dict[str, Callable[[], Any]] = {
        "item CTR by theme": rows.item_ctr,
        "one bilinear form": lambda: rows.bilinear(by_theme=False),
        "a bilinear form for each theme": lambda: rows.bilinear(by_theme=True),
    }
    for name in filter(options.wants, contenders):
        begun = time.monotonic()
        score = contenders[name]()
        yield line(name, score, seconds=time.monotonic() - begun)
    if options.wants(TRUTH):
        yield line(TRUTH, true)
    if options.wants(OURS):
        arguments = [text for name in names for text in (f"--{name}", getattr(dials, name))]
        last_day = session("data", "synthetic", *arguments)["last_day"]
        session.train(last_day)
        next_day, file = rows.table.filter(pa.array(rows.late)), folder / "pairs.parquet"
        pq.write_table(next_day, file)
        score = scores_of(next_day, session.scores(last_day, "--pairs", file, "--top-k", 0)).to_numpy()
        yield line(OURS, score, seconds=session.training_seconds)


def alike(folder: Path, seed: int, options: argparse.Namespace) -> Iterator[Figures]:
    """Yield a line: how many experts are kept where domains don't differ."""
    session = Session(folder)
    dials = {**ALIKE, "rows": int(ALIKE["rows"] * options.scale), "seed": seed}
    arguments = [text for name, value in dials.items() for text in (f"--{name}", value)]
    trained = session.train(session("data", "synthetic", *arguments)["last_day"])
    experts = [phase["helped"] for phase in trained["phases"] if phase["phase"] == "expert"]
    wauc = list(trained["metrics"].values())[-1]["wauc"]
    note = f"{sum(experts)} of {len(experts)} experts kept"
    yield Figures(OURS, seed, wauc, seconds=session.training_seconds, note=note)


def movielens(folder: Path, options: argparse.Namespace) -> Iterator[Figures]:
    """Yield a line a contender for MovieLens by occupation."""
    session = Session(folder)
    path = ("--path", options.movielens) if options.movielens else ()
    session("data", "movielens", "--domain-by", "occupation", *path)
    yield from _of_training("MovieLens by occupation", session, session.train(MOVIELENS_AS_OF))


def ciao(folder: Path, options: argparse.Namespace) -> Iterator[Figures]:
    """Yield a line a contender for Ciao by category: a click is the rating 5."""
    from scipy.io import loadmat

    session = Session(folder, MMLORA_CHECKS__WINDOW_DAYS=CIAO_WINDOW_DAYS)
    user, item, category, rating, _, seconds = np.asarray(loadmat(options.ciao)["rating"], np.int64).T
    table = pa.table(
        {
            "user_id": user,
            "item_id": item,
            "domain_id": [f"c{number:02d}" for number in category],
            "event_timestamp": pa.array(seconds * 1_000_000, pa.timestamp("us", "UTC")),
            "label": (rating == 5).astype(np.int8),
        }
    )
    keys = ["user_id", "item_id", "domain_id", "event_timestamp"]
    once = table.group_by(keys).aggregate([("label", "max")]).rename_columns([*keys, "label"])
    pq.write_table(once, folder / "ciao.parquet")
    session("data", "import", folder / "ciao.parquet")
    as_of = str(np.datetime64(int(seconds.max()), "s").astype("datetime64[D]") + 1)
    yield from _of_training("Ciao by category", session, session.train(as_of))


def _of_training(what: str, session: Session, trained: dict[str, Any]) -> Iterator[Figures]:
    """Yield the model on its test rows, and the baselines that the training compared it with."""
    for row in trained.get("judgement", {}).get("contenders", []):
        if row["name"] != "model" and "wauc" in row:
            figures = {name: row[name] for name in ("wauc", "seconds", "note")}
            yield Figures(row["name"], what, per_click=row["calibration"], **figures)
    last = list(trained["metrics"].values())[-1]
    calibration, seconds = last["pooled"]["calibration"], session.training_seconds
    yield Figures(OURS, what, last["wauc"], per_click=calibration, seconds=seconds)


MADE: dict[str, Callable[..., Iterator[Figures]]] = {"shop": shop, "themes": themes, "alike": alike}
REAL: dict[str, Callable[..., Iterator[Figures]]] = {"movielens": movielens, "ciao": ciao}
