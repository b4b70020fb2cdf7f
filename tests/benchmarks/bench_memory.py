"""How much anonymous memory writing, training and testing take, from a million made-up rows to fifty million.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_memory.py 1 5 50

Each number of millions is a process of its own, which samples ``RssAnon`` of /proc/self/status: what can't be
dropped and read again from a file. Prints the peak of each stage and training rows a second.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmlora.encoding import EncodedColumns, Encoder
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.schema import FeatureContract, FeatureField
from mmlora.training.calibration import fit_calibration
from mmlora.training.dataset import EncodedRows, TrainingSet
from mmlora.training.evaluation import evaluate
from mmlora.training.loop import TrainingOptions
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_backbone

_VALUES = {"user_id": 20_000, "item_id": 5_000, "domain_id": 20}
_CHUNK = 1 << 18


def made_up(rows: int, encoder: Encoder) -> Iterator[EncodedRows]:
    draw = np.random.default_rng(0)
    taste = [draw.normal(size=size) for size in _VALUES.values()]
    for start in range(0, rows, _CHUNK):
        size = min(_CHUNK, rows - start)
        ids = [draw.integers(0, values, size) for values in _VALUES.values()]
        logit = sum(own[id_] for own, id_ in zip(taste, ids, strict=True))
        columns = EncodedColumns(
            rows=size,
            categorical_names=tuple(_VALUES),
            categorical=np.stack(ids, 1).astype(np.int32) + 2,
            dense_names=(),
            dense=np.zeros((size, 0), np.float32),
            domain=ids[2].astype(np.int32),
        )
        label = draw.random(size) < 1 / (1 + np.exp(-logit))
        split = draw.choice(3, size, p=[0.8, 0.1, 0.1]).astype(np.int8)
        yield EncodedRows(columns, label.astype(np.int8), split, ids[0].astype(np.int32))


def write(rows: int, folder: Path) -> TrainingSet:
    fields = tuple(FeatureField(name, "", (name,), "STRING", "categorical") for name in _VALUES)
    most = max(_VALUES.values())
    table = pa.table({name: [str(n % values) for n in range(most)] for name, values in _VALUES.items()})
    domains = [str(n) for n in range(_VALUES["domain_id"])]
    encoder = Encoder.fit(FeatureContract("", fields), table, domains=domains)
    return TrainingSet.write(folder / "set", made_up(rows, encoder), encoder=encoder, fingerprint="")


def anonymous() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) >> 10


def peak_of(stage: Callable[[], Any]) -> tuple[Any, int]:
    """Run a stage and sample meanwhile: MB."""
    peak, done = [anonymous()], threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            peak.append(max(peak.pop(), anonymous()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        return stage(), peak[0]
    finally:
        done.set()
        thread.join()


def measure(millions: int, folder: Path) -> None:
    import torch

    from mmlora.models.builder import assemble_model

    torch.set_num_threads(1)
    data, writing = peak_of(lambda: write(millions * 10**6, folder))
    spec = ModelSpec(
        backbone="wdl",
        adaptation="none",
        fields=tuple(FieldShape(name, "categorical", values + 2) for name, values in _VALUES.items()),
        num_domains=_VALUES["domain_id"],
        crosses=False,
        embedding_dim=4,
        hidden_units=(8,),
        dropout=0.0,
    )
    options = TrainingOptions(batch_size=8192, max_epochs=1, device="cpu", threads=1)
    began = time.perf_counter()
    result, training = peak_of(lambda: train_backbone(spec, data, options, SilentObserver()))
    seconds = time.perf_counter() - began
    model = assemble_model(spec, backbone=result.state)
    calibration, calibrating = peak_of(lambda: fit_calibration(model, data))
    tested, testing = peak_of(lambda: evaluate(model, data, "test", calibration, user=data.user))
    epoch = result.report.history[0]
    print(
        f"{millions:>4}M rows: writing {writing} MB, training {training} MB, calibration {calibrating} MB, "
        f"test {testing} MB; {epoch.rows_per_second:,.0f} rows/s, phase {seconds:.0f} s, "
        f"wauc {tested.wauc:.4f}",
        flush=True,
    )


def main(arguments: list[Any]) -> None:
    if arguments[:1] == ["--one"]:
        measure(int(arguments[1]), Path(arguments[2]))
        return
    for millions in arguments:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, "--one", str(millions), folder], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
