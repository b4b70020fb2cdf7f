"""Times one epoch of one library, alone in its process: prints ``{"seconds": ...}`` or ``{"missing": ...}``.

Every library trains the same rows, with embedding 8, tower 256-128-64, dropout 0.5 and Adam 1e-3, by its own
loop and loader, without validation and without any penalty on weights. torch-rechub's tower always normalises
over the batch. FuxiCTR's wheel leaves its model zoo out: the two models are put together from its layers as
the zoo does. Run by ``bench_training.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

EMBEDDING_DIM, HIDDEN, DROPOUT, LEARNING_RATE = 8, (256, 128, 64), 0.5, 1e-3
Columns = dict[str, np.ndarray]


def deepctr(model: str, columns: Columns, label: np.ndarray, batch: int) -> Callable[[], object]:
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import WDL, DeepFM

    fields = [SparseFeat(n, int(v.max()) + 1, embedding_dim=EMBEDDING_DIM) for n, v in columns.items()]
    net = {"wdl": WDL, "deepfm": DeepFM}[model](
        *(fields, fields),
        dnn_hidden_units=HIDDEN,
        dnn_dropout=DROPOUT,
        l2_reg_linear=0,
        l2_reg_embedding=0,
    )
    net.compile(torch.optim.Adam(net.parameters(), LEARNING_RATE), "binary_crossentropy")
    return lambda: net.fit(dict(columns), label.astype(np.float32), batch_size=batch, epochs=1, verbose=0)


def rechub(model: str, columns: Columns, label: np.ndarray, batch: int) -> Callable[[], object]:
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.ranking import DeepFM, WideDeep
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    fields = [SparseFeature(n, int(v.max()) + 1, embed_dim=EMBEDDING_DIM) for n, v in columns.items()]
    shape = {"dims": list(HIDDEN), "dropout": DROPOUT, "activation": "relu"}
    net = {"wdl": WideDeep, "deepfm": DeepFM}[model](fields, fields, mlp_params=shape)
    loader, _, _ = DataGenerator(columns, label).generate_dataloader(
        x_val=columns, y_val=label, x_test=columns, y_test=label, batch_size=batch
    )
    trainer = CTRTrainer(
        net,
        optimizer_params={"lr": LEARNING_RATE, "weight_decay": 0.0},
        n_epoch=1,
        model_path=tempfile.mkdtemp(),
    )
    return lambda: trainer.fit(loader)


def fuxictr(model: str, columns: Columns, label: np.ndarray, batch: int) -> Callable[[], object]:
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, LogisticRegression, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    folder = tempfile.mkdtemp()
    fields = FeatureMap("bench", folder)
    for name, values in columns.items():
        fields.features[name] = {"source": "", "type": "categorical", "vocab_size": int(values.max()) + 1}
    fields.labels, fields.num_fields, fields.default_emb_dim = ["label"], len(columns), EMBEDDING_DIM
    fields.set_column_index()

    class Net(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(fields, verbose=0, model_root=folder, metrics=["AUC"], eval_steps=1 << 60)
            self.embed = FeatureEmbedding(fields, EMBEDDING_DIM)
            self.wide = {"wdl": LogisticRegression, "deepfm": FactorizationMachine}[model](fields)
            self.deep = MLP_Block(
                input_dim=fields.sum_emb_out_dim(),
                output_dim=1,
                hidden_units=list(HIDDEN),
                hidden_activations="relu",
                dropout_rates=DROPOUT,
            )
            self.compile("adam", "binary_crossentropy", LEARNING_RATE)
            self.reset_parameters()
            # What ``fit`` sets before it calls ``train_epoch``; it insists on validation rows.
            self._max_gradient_norm, self._total_steps, self._stop_training = 10.0, 0, False

        def forward(self, inputs: Any) -> Any:
            x = self.get_inputs(inputs)
            embedded = self.embed(x)
            wide = self.wide(x) if model == "wdl" else self.wide(x, embedded)
            return {"y_pred": self.output_activation(wide + self.deep(embedded.flatten(start_dim=1)))}

    np.savez(Path(folder) / "rows.npz", label=label, **columns)
    loader = NpzDataLoader(fields, f"{folder}/rows.npz", batch_size=batch, shuffle=True, num_workers=0)
    net = Net()
    return lambda: net.train_epoch(loader)


def mmlora(
    model: str, data: Path, batch: int, rows: int | None, threads: int, precision: str
) -> Callable[[], float]:
    """Return the loop's own ``fit`` on the project's own training set; it gives an epoch's seconds."""
    from mmlora.models.builder import build_model
    from mmlora.models.spec import FieldShape, ModelSpec
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.loop import TrainingOptions, fit, reproducible

    training_set = TrainingSet.open(data)
    chosen = training_set.rows("train")[:rows]
    fields = tuple(FieldShape(*shape) for shape in training_set.encoder.field_shapes())
    spec = ModelSpec(
        *(model, "none", fields, training_set.num_domains),  # type: ignore[arg-type]
        crosses=False,
        embedding_dim=EMBEDDING_DIM,
        hidden_units=HIDDEN,
        dropout=DROPOUT,
    )
    options = TrainingOptions(
        batch_size=batch,
        max_epochs=1,
        learning_rate=LEARNING_RATE,
        device="cpu",
        threads=threads,
        precision=precision,  # type: ignore[arg-type]
    )

    def epoch() -> float:
        with reproducible(options) as generator:
            net = build_model(spec)
            run = fit(
                *(net, list(net.backbone_parameters()), training_set, chosen),
                measure=lambda _: 0.0,
                higher_is_better=True,
                learning_rate=LEARNING_RATE,
                dropout=True,
                options=options,
                generator=generator,
                on_epoch=lambda _: None,
            )
        return len(chosen) / run.history[0].rows_per_second

    return epoch


PEERS = {"DeepCTR-Torch": deepctr, "torch-rechub": rechub, "FuxiCTR": fuxictr}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["mmlora", "mmlora bfloat16", *PEERS])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=["wdl", "deepfm"], required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rows", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    # What the libraries print goes to the errors; the last line is ours.
    with contextlib.redirect_stdout(sys.stderr):
        answer = time_epoch(asked)
    print(json.dumps(answer), flush=True)
    os._exit(0)  # DeepCTR-Torch asks the network for its newest version, in a thread that may take its time


def time_epoch(asked: argparse.Namespace) -> dict[str, Any]:
    shape = (asked.model, asked.data, asked.batch)
    try:
        if asked.name.startswith("mmlora"):
            precision = "bfloat16" if "bfloat16" in asked.name else "float32"
            seconds = mmlora(*shape, asked.rows, asked.threads, precision)()
            return {"seconds": seconds}
        rows = np.load(asked.data / "bench.npz")
        columns = {name: rows[name][: asked.rows] for name in rows.files if name != "label"}
        epoch = PEERS[asked.name](asked.model, columns, rows["label"][: asked.rows], asked.batch)
    except ImportError as error:
        return {"missing": str(error)}
    began = time.perf_counter()
    epoch()
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
