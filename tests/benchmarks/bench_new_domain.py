"""A domain that is new to the model, with 0 to 10,000 rows: prints a Markdown table.

Made-up domains in families of akin ones (``mmlora data synthetic --families``), or the markets of the made-up
shop. Some domains are left out of the training. Then a number of their rows is imported, ``mmlora share``
decides what they get, and the domain's last rows, which nothing has read, are scored by the backbone alone
and by what was decided. An own expert is trained when the domain's verdict is ``rich``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from mmlora.data.synthetic import Dials, make_synthetic

SIZES = (0, 100, 1_000, 10_000)
TEST_ROWS = 4_000
ENTITIES = ["user_id", "item_id", "domain_id", "event_timestamp"]


@dataclass(frozen=True)
class World:
    """Interactions in the order of time, profiles, and the domains to leave out."""

    interactions: pa.Table
    profiles: dict[str, pa.Table]
    left_out: list[str]

    @property
    def day_after(self) -> date:
        return day_after(self.interactions)


def day_after(rows: pa.Table) -> date:
    """Return the day after the last row."""
    return pc.max(rows["event_timestamp"]).as_py().date() + timedelta(days=1)


def akin(seed: int, families: int, rows: int) -> World:
    dials = Dials(
        domains=20,
        users=10_000,
        items=3_000,
        rows=rows,
        days=30,
        diversity=0.8,
        families=families,
        sparsity=0.0,
        seed=seed,
        vectors=16,
    )
    data = make_synthetic(dials)
    names = sorted(set(data.interactions["domain_id"].to_pylist()))
    return World(data.interactions, dict(data.profiles), names[:3])


def shop(seed: int) -> World:
    from mmlora.data.shop import ShopDials
    from mmlora.data.shop_files import write_shop

    with tempfile.TemporaryDirectory() as folder:
        files = write_shop(Path(folder), ShopDials(seed=seed))
        rows = pq.read_table(files.interactions)
        profiles = {"user": csv.read_csv(files.users), "item": pq.read_table(files.items)}
    sizes = rows["domain_id"].combine_chunks().value_counts().to_pylist()
    by_size = [entry["values"] for entry in sorted(sizes, key=lambda entry: -entry["counts"])]
    return World(rows, profiles, [str(name) for name in by_size[2:5]])


def import_rows(rows: pa.Table, profiles: dict[str, pa.Table] | None = None) -> None:
    from mmlora.pipeline.data import import_tables

    with tempfile.TemporaryDirectory() as folder:
        files = {"interactions": rows, **({f"{k}s": t for k, t in profiles.items()} if profiles else {})}
        for name, table in files.items():
            pq.write_table(table, Path(folder, f"{name}.parquet"))
        paths = {name: Path(folder, f"{name}.parquet") for name in files}
        others = {name: [path] for name, path in paths.items() if name != "interactions"}
        import_tables([paths["interactions"]], **others, history=True)


def figures(world: World, homes: Path) -> Iterator[list[object]]:
    """Train without some domains, then yield a row per domain and number of its rows."""
    from mmlora.pipeline.train import train

    base = homes / "base"
    os.environ["MMLORA_HOME"] = str(base)
    rows = world.interactions.sort_by("event_timestamp")
    out = pc.is_in(rows["domain_id"], value_set=pa.array(world.left_out))
    import_rows(rows.filter(pc.invert(out)), world.profiles)
    train(world.day_after)
    for domain in world.left_out:
        own = rows.filter(pc.equal(rows["domain_id"], domain))
        # Whole days: a day cut short isn't a delivery that the checks accept.
        begins = pc.floor_temporal(own["event_timestamp"][own.num_rows - TEST_ROWS], unit="day")
        earlier = pc.less(own["event_timestamp"], begins)
        test, before = own.filter(pc.invert(earlier)), own.filter(earlier)
        for size in SIZES:
            if size > before.num_rows:
                continue
            home = homes / f"{domain}-{size}"
            shutil.copytree(base, home)
            os.environ["MMLORA_HOME"] = str(home)
            on = world.day_after
            if size:
                known = before.slice(before.num_rows - size)
                import_rows(known)
                on = day_after(known)  # later, the domain would have fallen silent
            yield [domain, size, *decided(on, domain, size, test)]
            shutil.rmtree(home)


def decided(on: date, domain: str, size: int, test: pa.Table) -> list[object]:
    from mmlora.metrics.bootstrap import compare
    from mmlora.pipeline.share import share_experts
    from mmlora.runs.champions import bundle_of
    from mmlora.workspace import open_workspace

    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        before = bundle_of(workspace, warehouse, domain, None)
    outcome = share_experts(on, domains=[domain])[0] if size else None
    after = workspace.bundles.load(outcome.model_version) if outcome else before
    features = workspace.feature_repo.retrieve(test.select(ENTITIES), before.contract)
    encoder = before.encoder()
    encoded = encoder.encode(features)
    batch = encoder.assemble([(encoded, np.arange(test.num_rows))])
    labels = test["label"].to_numpy().astype(np.float64)
    old = before.calibration.apply(before.model()(batch).double(), batch.domain).detach().numpy()
    new = after.calibration_of(domain).apply(after.model_of(domain)(batch).double(), batch.domain)
    new = new.detach().numpy()
    gain = compare(labels, new, old, np.zeros(len(labels), np.int64), draws=400, level=0.95, seed=0).auc
    mixture = ", ".join(f"{n} {w:.2f}" for n, w in outcome.experts.items()) if outcome else ""
    return [
        outcome.policy if outcome else "backbone",
        mixture,
        gain.value,
        gain.low,
        gain.high,
        *(loss(labels, old), loss(labels, new)),
        *(float(old.sum() / labels.sum()), float(new.sum() / labels.sum())),
    ]


def loss(labels: np.ndarray, p: np.ndarray) -> float:
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=("akin", "shop"), default="akin")
    parser.add_argument("--families", type=int, default=4)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    print(
        "| seed | domain | rows | experts | from | auc gained | log loss before | after "
        "| sum / clicks before | after |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for seed in options.seeds:
        world = shop(seed) if options.world == "shop" else akin(seed, options.families, options.rows)
        with tempfile.TemporaryDirectory() as homes:
            for domain, size, policy, mixture, gain, low, high, *rest in figures(world, Path(homes)):
                losses, sums = rest[:2], rest[2:]
                cells = [seed, domain, f"{size:,}", policy, mixture, f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"]
                cells += [f"{value:.4f}" for value in losses] + [f"{value:.2f}" for value in sums]
                print("|", " | ".join(map(str, cells)), "|", flush=True)


if __name__ == "__main__":
    main()
