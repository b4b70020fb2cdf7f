"""What is refused before training starts, and what each refusal says."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmlora.errors import DataError, UsageError
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.train import train
from mmlora.runs.steps import prepare
from mmlora.runs.training_run import open_run, options_of
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp

AS_OF = date(2001, 4, 8)


def test_a_training_set_with_one_label_is_refused(
    made_up: MadeUp, made_up_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(made_up.interactions)
    place = table.schema.get_field_index("label")
    ones = pa.array(np.ones(table.num_rows, np.int8))
    pq.write_table(table.set_column(place, "label", ones), tmp_path / "clicked.parquet")
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("MMLORA_CHECKS__CTR_MAX", "1")  # or the checks would fail first
    import_tables(tmp_path / "clicked.parquet")
    with pytest.raises(DataError, match=r"all [\d,]+ training rows have label 1.*import interactions"):
        train(AS_OF, features="ids")
    assert not (tmp_path / "other" / "runs").exists()


def test_more_experts_than_domains_can_feed_are_refused(made_up_workspace: Path) -> None:
    with pytest.raises(
        UsageError, match=r"each expert needs 10 training rows of each label.*lower it to \d+"
    ):
        prepare(AS_OF, features="ids", experts_per_domain=500)
    assert prepare(AS_OF, features="ids", experts_per_domain=3)


def test_a_gate_that_keeps_more_experts_than_there_are_is_refused(made_up_workspace: Path) -> None:
    with pytest.raises(UsageError, match="gate_top_k is 3, but there are 2 experts"):
        prepare(AS_OF, features="ids", gate_top_k=3)
    assert prepare(AS_OF, features="ids", gate_top_k=3, experts_per_domain=2)


@pytest.mark.parametrize(
    ("rank", "message"), [(64, "above the smallest hidden width, 8"), (0.0, "rank"), (1.5, "rank")]
)
def test_a_rank_that_no_layer_can_have_is_refused(made_up_workspace: Path, rank: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(AS_OF, features="ids", rank=rank)


def test_without_a_rich_domain_only_the_backbone_is_trained_with_a_note(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MMLORA_CHECKS__RICH_MIN_ROWS", "1000000")
    with caplog.at_level(logging.WARNING, "mmlora"):
        trained = train(AS_OF, features="ids").to_json()
    assert [row["phase"] for row in trained["phases"]] == ["crosses", "backbone"]
    assert "no domain is rich as of 2001-04-08, so moe_mlora has no expert to train" in caplog.text


def test_the_run_does_not_depend_on_the_device(made_up_workspace: Path) -> None:
    run_id = prepare(AS_OF, features="ids", device="cpu")
    assert prepare(AS_OF, features="ids") == run_id
    assert options_of(*open_run(run_id)).device == "auto"
    prepare(AS_OF, features="ids", device="cuda")
    if torch.cuda.is_available():
        assert options_of(*open_run(run_id)).torch_device == "cuda"
    else:
        with pytest.raises(UsageError, match="use auto or cpu"):
            options_of(*open_run(run_id))
    with pytest.raises(UsageError, match="device"):
        prepare(AS_OF, features="ids", device="tpu")


def test_test_metrics_are_complete(made_up_workspace: Path) -> None:
    trained = train(AS_OF, features="ids", adaptation="none").to_json()
    found = trained["metrics"]["backbone"]
    assert set(found) == {"wauc", "macro_auc", "pooled", "by_domain", "without_auc"}
    assert found["pooled"]["users"] == 60 and 0 < found["pooled"]["gauc"] < 1
    assert all(row["ece"] is not None for row in found["by_domain"].values())
    defined = [row["auc"] for row in found["by_domain"].values() if row["auc"] is not None]
    assert found["macro_auc"] == pytest.approx(np.mean(defined))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=open_workspace().mlflow_url)
    (run,) = client.search_runs([client.get_experiment_by_name("mmlora").experiment_id])
    logged = {name for name in run.data.metrics if name.startswith("test/backbone/")}
    assert {f"test/backbone/{name}" for name in ("wauc", "macro_auc", "auc", "gauc", "ece")} <= logged
    assert {f"test/backbone/news/{name}" for name in ("auc", "gauc", "ne", "calibration", "ece")} <= logged
    undefined = [name for name, row in found["by_domain"].items() if row["auc"] is None]
    assert found["without_auc"] == undefined
