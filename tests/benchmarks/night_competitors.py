"""The competitors of the night's benchmark: each scores and publishes in a process of its own.

Run as ``python night_competitors.py prepare|ours|obvious ...`` in a workspace that the environment names.
``prepare`` imports MovieLens-1M by gender and trains briefly; ``ours`` is the function behind ``mmlora
score``; ``obvious`` is a straightforward pipeline of the same libraries and the same model: pairs in a data
frame, Feast on the pairs, dictionaries, a DataLoader, a sort, ``to_sql``. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

ON = date(2003, 3, 1)
"""The night: all of MovieLens-1M lies before it."""
TOP_K = 100
BATCH = 8192
TABLE = "obvious_scores"

REST, WAITING = "verdicts, model, loads", "publication"
# The functions that mmlora score calls, and the step that each counts as; the rest waits for publication.
WATCHED = {
    ("mmlora.pipeline.score", "scoring_domains"): REST,
    ("mmlora.pipeline.score", "left_out"): REST,
    ("mmlora.pipeline.score", "score"): REST,
    ("mmlora.pipeline.score", "publish"): WAITING,
    ("mmlora.nights.load", "ensure_features"): "features",
    ("mmlora.nights.load_job", "choose"): "candidates",
    ("mmlora.features.repo", "FeatureRepo.retrieve"): "features",
    ("mmlora.scoring.pair_scorer", "PairScorer.__init__"): "encoding",
    ("mmlora.scoring.pair_scorer", "PairScorer.of_users"): "encoding",
    ("mmlora.scoring.blocks", "Chunk.score"): "scoring",
    ("mmlora.scoring.blocks", "Chunk.rank"): "ranking",
    ("mmlora.scoring.fingerprint", "fingerprint_load"): "encoding",
    ("mmlora.scoring.staging", "StagedWriter.write"): "staging",
    ("mmlora.scoring.staging", "StagedWriter.end_part"): "staging",
    ("mmlora.scoring.staging", "StagedWriter.__exit__"): "staging",
    ("mmlora.checks.audit", "audit_load"): "audit",
}


class Stopwatch:
    """Wall-clock and processor seconds by step, without the steps inside it.

    Other threads than the main thread are counted separately.
    """

    def __init__(self) -> None:
        self.spent: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self.beside: dict[str, float] = defaultdict(float)
        self._inner: list[np.ndarray] = []

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = np.array([time.perf_counter(), time.process_time()])
        self._inner.append(np.zeros(2))
        try:
            yield
        finally:
            took = np.array([time.perf_counter(), time.process_time()]) - began
            self.spent[name] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took

    def watch(self, module: str, function: str, name: str) -> None:
        """Count the calls of a function (dotted for a method) as a step from now on."""
        *owners, attribute = function.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        call = getattr(owner, attribute)
        main = threading.main_thread()

        @wraps(call)
        def counted(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is main:
                with self.step(name):
                    return call(*arguments, **options)
            began = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.beside[name] += time.perf_counter() - began

        setattr(owner, attribute, counted)

    def seconds(self) -> dict[str, list[float]]:
        return {name: spent.tolist() for name, spent in self.spent.items()}


def prepare(models: list[str], movielens: Path | None) -> dict[str, str]:
    """Import, build the features, train each model for an epoch a phase; return their versions."""
    from mmlora.pipeline.data import import_movielens
    from mmlora.pipeline.features import build_features
    from mmlora.pipeline.train import train
    from mmlora.pipeline.validate import validate

    import_movielens(domain_by="gender", path=movielens)
    build_features(ON)
    validate(ON)
    asked: dict[str, Any] = {"adaptation": "moe_mlora", "max_epochs": 1, "batch_size": BATCH}
    return {name: train(ON, backbone=name, **asked).model_version for name in models}


def ours(version: str) -> dict[str, Any]:
    """Score and publish the night of both domains."""
    watch = Stopwatch()
    with watch.step("imports"):
        for name in (
            "duckdb",
            "feast",
            "torch",
            "adbc_driver_postgresql.dbapi",
            "mmlora.pipeline.score",
        ):
            importlib.import_module(name)
    for (module, name), step in WATCHED.items():
        watch.watch(module, name, step)
    from mmlora.pipeline.score import score_and_publish

    with watch.step(WAITING):
        result = score_and_publish(ON, model_version=version, top_k=TOP_K)
    if faults := [load.reason for load in result.loads if load.state != "published"]:
        raise SystemExit(f"not published: {faults}")
    sizes = {name: sum(getattr(load, name) for load in result.loads) for name in ("users", "pairs", "rows")}
    return {"steps": watch.seconds(), **sizes, "beside": dict(watch.beside), "peak": peak()}


def obvious(version: str, users: int) -> dict[str, Any]:
    """Score and publish so many users of each domain, a domain after the other."""
    watch = Stopwatch()
    with watch.step("imports"):
        for name in ("duckdb", "feast", "torch", "pandas", "sqlalchemy"):
            importlib.import_module(name)
    with watch.step("read once"):
        pipeline = Obvious(version)
    pipeline.run(Stopwatch(), "F", 1, f"{TABLE}_warm_up")  # what is set up once is no pair's speed
    pairs = [pipeline.run(watch, domain, users, TABLE) for domain in ("F", "M")]
    return {"steps": watch.seconds(), "users": 2 * users, "pairs": sum(pairs), "peak": peak()}


class Obvious:
    """The pipeline that one writes first: one data frame of pairs from beginning to end."""

    def __init__(self, version: str) -> None:
        import pandas as pd
        import sqlalchemy as sa

        from mmlora.workspace import open_workspace

        workspace = open_workspace()
        bundle = workspace.bundles.load(version)
        self.version = version
        self.model, self.encoder, self.calibration = bundle.model(), bundle.encoder(), bundle.calibration
        self.codes = {
            name: {value: code for code, value in enumerate(table["value"].to_pylist(), start=2)}
            for name, table in self.encoder.to_tables().items()
        }
        self.fitted = self.encoder.spec()["fields"]
        self.day = pd.Timestamp(ON, tz="UTC")
        history = pd.read_parquet(workspace.offline / "interactions")
        history = history[history["event_timestamp"] < self.day]
        profiles = pd.read_parquet(workspace.offline / "profiles" / "item")
        self.items = sorted({*history["item_id"], *profiles["item_id"]})
        self.active = {
            domain: sorted(rows.unique()) for domain, rows in history.groupby("domain_id")["user_id"]
        }
        self.had = history[["user_id", "item_id"]].drop_duplicates().set_index("user_id").sort_index()
        self.store, self.service = self._feast(workspace.home / "feast" / "registry.db")
        self.database = sa.create_engine(
            sa.make_url(workspace.warehouse_url).set(drivername="postgresql+psycopg")
        )

    def run(self, watch: Stopwatch, domain: str, users: int, table: str) -> int:
        """Score and publish some users of a domain; return their number of pairs."""
        with watch.step("candidates"):
            pairs = self.pairs(domain, users)
        with watch.step("features"):
            rows = self.store.get_historical_features(pairs, self.service, full_feature_names=True).to_df()
        with watch.step("encoding"):
            loader = self.loader(rows)
        with watch.step("scoring"):
            rows["score"] = self.scores(loader)
        with watch.step("ranking"):
            best = self.best(rows)
        with watch.step("publication"):
            best.to_sql(table, self.database, if_exists="append", index=False, chunksize=10_000)
        return len(pairs)

    def pairs(self, domain: str, users: int) -> Any:
        """Every item for some of the domain's users, less what each has had."""
        import pandas as pd

        everybody = self.active[domain]
        chosen = everybody[:: len(everybody) // users][:users]
        grid = pd.MultiIndex.from_product([chosen, self.items], names=["user_id", "item_id"])
        had = self.had.loc[chosen].reset_index()
        pairs = grid.to_frame(index=False).merge(had, how="left", indicator=True)
        pairs = pairs[pairs["_merge"] == "left_only"].drop(columns="_merge")
        return pairs.assign(domain_id=domain, event_timestamp=self.day)

    def loader(self, rows: Any) -> Any:
        """Look every value up, standardise every number, and batch the rows."""
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        codes = [self._codes(rows[name], name) for name in self.encoder.names("categorical")]
        numbers = [self._standard(rows[name], name) for name in self.encoder.names("dense")]
        bags = [self._bag(rows[name], name) for name in self.encoder.names("bag")]
        domain = (
            rows["domain_id"].map({name: i for i, name in enumerate(self.encoder.domains)}).to_numpy(np.int64)
        )
        columns = [np.stack(codes, axis=1), np.stack(numbers, axis=1), domain, *bags]
        dataset = TensorDataset(*(torch.from_numpy(column) for column in columns))
        return DataLoader(dataset, batch_size=BATCH, num_workers=0)

    def scores(self, loader: Any) -> np.ndarray:
        """Run the model over the batches."""
        import torch

        from mmlora.batch import Batch

        names, found = self.encoder.names("bag"), []
        with torch.inference_mode():
            for categorical, dense, domain, *bags in loader:
                batch = Batch(categorical, dense, domain, bags=dict(zip(names, bags, strict=True)))
                found.append(self.calibration.apply(self.model(batch), domain))
        return np.asarray(torch.cat(found).numpy())

    def best(self, rows: Any) -> Any:
        """Each user's first, by score and item."""
        rows = rows[["user_id", "item_id", "domain_id", "score"]]
        rows = rows.sort_values(["user_id", "score", "item_id"], ascending=[True, False, True])
        best = rows.groupby("user_id").head(TOP_K)
        position = best.groupby("user_id").cumcount() + 1
        return best.assign(position=position, score_date=ON, model_version=self.version)

    def _codes(self, column: Any, name: str) -> np.ndarray:
        codes = column.map(self.codes[name]).fillna(1).astype(np.int64)
        return np.asarray(codes.where(column.notna(), 0))

    def _standard(self, column: Any, name: str) -> np.ndarray:
        fitted, values = self.fitted[name], column.astype(float)
        values = np.log1p(values.clip(lower=0)) if fitted["transform"] == "log1p" else values
        values = ((values - fitted["mean"]) / fitted["std"]).fillna(0).clip(-20, 20)
        return np.asarray(values.astype(np.float32))

    def _bag(self, column: Any, name: str) -> np.ndarray:
        codes, length = self.codes[name], self.fitted[name]["length"]
        out = np.zeros((len(column), length), np.int64)
        for row, values in enumerate(column):
            known = [codes.get(value, 1) for value in (() if values is None else values)][:length]
            out[row, : len(known)] = known
        return out

    def _feast(self, registry: Path) -> tuple[Any, Any]:
        """Open the workspace's own feature registry with Feast's own DuckDB store."""
        from feast import FeatureStore, RepoConfig

        config = RepoConfig(
            project="mmlora",
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{registry}"},
            offline_store={"type": "duckdb"},
            online_store=None,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        return store, store.get_feature_service("mmlora_all")


def peak() -> int:
    """Return the most memory that this process held, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["prepare", "ours", "obvious"])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--movielens", type=Path)
    parser.add_argument("--version")
    parser.add_argument("--users", type=int)
    asked = parser.parse_args()
    answers: dict[str, Callable[[], dict[str, Any]]] = {
        "prepare": lambda: prepare(asked.models, asked.movielens),
        "ours": lambda: ours(asked.version),
        "obvious": lambda: obvious(asked.version, asked.users),
    }
    # What the libraries print goes to the errors.
    with contextlib.redirect_stdout(sys.stderr):
        answer = answers[asked.name]()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
