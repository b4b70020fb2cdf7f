"""Run one cell: train its arm, calibrate on validation rows, and score the test rows once.

A trial of a study ends after scoring the validation rows.
"""

from __future__ import annotations

import time
from io import BytesIO
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch

import mmlora
from mmlora import metrics
from mmlora.errors import DataError
from mmlora.experiments.data import shared_home, true_probability, workspace_at, write_test_rows
from mmlora.experiments.job import Job
from mmlora.experiments.lab import Lab, Mixing, TrainedArm
from mmlora.experiments.results import (
    BestOnTest,
    GateWeights,
    PhasesHelped,
    Result,
    TrainedFacts,
    write_result,
)
from mmlora.experiments.train_arms import TRAINERS
from mmlora.files import write_atomically
from mmlora.metrics import DomainMetrics
from mmlora.models.calibration import Calibration, calibrate
from mmlora.runs.training_run import options_from, spec_from
from mmlora.training import TRAINING_REVISION
from mmlora.training.controls import WithoutTest
from mmlora.training.dataset import TrainingSet

if TYPE_CHECKING:
    from mmlora.training.observer import PhaseReport

_BLOCK = 16384
_POOLED = ("gauc", "auc", "logloss", "ne", "calibration", "ece")
_BY_DOMAIN = ("rows", "positives", "auc", "gauc", "logloss", "ne", "calibration", "ece")
_PHASE = {"backbone": "backbone", "joint": "backbone", "expert": "experts", "gate": "gate"}


def run_cell(job: Job) -> Result:
    """Train and test a cell; phases that other cells have trained are reused.

    Returns:
        The content of ``result.json``.
    """
    began = time.perf_counter()
    lab = make_lab(job)
    trained = TRAINERS[job.cell.arm](lab)
    calibration, validation_wauc = _validate(trained, lab.training_set)
    probability, measured = _test(trained, lab.training_set, calibration)
    result = cast(
        Result,
        {
            "cell": job.cell.to_json(),
            "cell_key": job.key,
            "data_key": write_test_rows(job.folder, lab.training_set),
            "test": _pooled(measured, lab.training_set),
            "by_domain": _by_domain(measured, lab.training_set),
            "validation_wauc": validation_wauc,
            "gate_weights": _gate_weights(trained.mixing, lab.training_set),
            "best_reachable": _best_reachable(job, lab.training_set),
            **_trained(job, trained, began),
        },
    )
    scores = BytesIO()
    np.save(scores, probability.astype(np.float32))
    write_atomically(job.result_folder / "scores.npy", scores.getvalue())
    write_result(job.result_folder, result)
    return result


def run_trial(job: Job) -> Result:
    """Train a cell and measure it on validation rows; it has no access to test rows.

    Returns:
        The content of ``result.json``.

    Raises:
        DataError: no domain's validation rows have both labels.
    """
    began = time.perf_counter()
    lab = make_lab(job)
    trained = TRAINERS[job.cell.arm](lab)
    data = lab.training_set
    rows = data.rows("validation")
    wauc = metrics.wauc(np.asarray(data.label[rows]), trained.score(rows), np.asarray(data.domain[rows]))
    if wauc is None:
        raise DataError("training set", "no domain's validation rows have both labels: nothing to tune by")
    result = cast(
        Result,
        {
            "cell": job.cell.to_json(),
            "study": job.study,
            "trial": int(job.key),
            "validation_wauc": wauc,
            **_trained(job, trained, began),
        },
    )
    write_result(job.result_folder, result)
    return result


def _trained(job: Job, trained: TrainedArm, began: float) -> TrainedFacts:
    """Return the part of a result that says how its model was trained."""
    return {
        "phases": [report.to_json() for report in trained.phases],
        "helped": _helped(trained.phases),
        "parameters": dict(trained.parameters),
        "parts": dict(trained.parts),
        "seconds": _seconds(trained.phases, time.perf_counter() - began),
        "settings": job.settings.model_dump(mode="json", exclude={"threads"}),
        "code_version": mmlora.__version__,
        "training_revision": TRAINING_REVISION,
        "mlflow_run_id": None,
    }


def make_lab(job: Job) -> Lab:
    """Open a cell's rows, and derive its specification and options as a training run does."""
    data = workspace_at(job.rows.home, job.threads)
    rows = (WithoutTest if job.study else TrainingSet).open(
        data.training_set_folder(job.rows.training_set_id)
    )
    return Lab(
        workspace=workspace_at(shared_home(job.folder), job.threads),
        training_set=rows,
        training_set_id=job.rows.training_set_id,
        spec=spec_from(job.settings, rows),
        options=options_from(job.settings, data),
    )


def _validate(trained: TrainedArm, data: TrainingSet) -> tuple[Calibration, float | None]:
    rows = data.rows("validation")
    logits, domain = trained.score(rows), np.asarray(data.domain[rows], np.int64)
    label = np.asarray(data.label[rows])
    return calibrate(logits, label, domain, data.num_domains), metrics.wauc(label, logits, domain)


def _test(
    trained: TrainedArm, data: TrainingSet, calibration: Calibration
) -> tuple[npt.NDArray[np.float64], DomainMetrics]:
    """Score the test rows; calibration and metrics use a row's true domain, even for a placebo."""
    rows = data.rows("test")
    domain = np.asarray(data.domain[rows], np.int64)
    logits = torch.from_numpy(trained.score(rows)).double()
    probability = calibration.apply(logits, torch.from_numpy(domain)).numpy()
    label, user = np.asarray(data.label[rows]), np.asarray(data.user[rows])
    return probability, metrics.domain_metrics(label, probability, domain, user)


def _pooled(measured: DomainMetrics, data: TrainingSet) -> dict[str, object]:
    pooled = {name: getattr(measured.pooled, name) for name in _POOLED}
    without = [str(data.domains[index]) for index in measured.without_auc]
    return {"wauc": measured.wauc, "macro_auc": measured.macro_auc, **pooled, "without_auc": without}


def _by_domain(measured: DomainMetrics, data: TrainingSet) -> dict[str, dict[str, float | None]]:
    return {
        str(data.domains[index]): {name: getattr(own, name) for name in _BY_DOMAIN}
        for index, own in measured.by_domain.items()
    }


def _helped(phases: tuple[PhaseReport, ...]) -> PhasesHelped:
    experts = [report.helped for report in phases if report.phase == "expert"]
    gate = next((report.helped for report in phases if report.phase == "gate"), None)
    return {"experts": sum(experts), "of": len(experts), "gate": gate}


def _seconds(phases: tuple[PhaseReport, ...], total: float) -> dict[str, float]:
    """Return the training seconds by phase, including shared phases; ``cell`` is what this cell took."""
    spent = {"backbone": 0.0, "experts": 0.0, "gate": 0.0}
    for report in phases:
        spent[_PHASE[report.phase]] += report.seconds
    return {**spent, "total": sum(spent.values()), "cell": total}


@torch.inference_mode()
def _gate_weights(mixing: Mixing | None, data: TrainingSet) -> GateWeights | None:
    """Return the mean weight of each expert over each domain's test rows, as the arm adapts them."""
    if mixing is None:
        return None
    rows = data.rows("test")
    domain = np.asarray(data.domain[rows], np.int64)
    sums = np.zeros((data.num_domains, len(mixing.experts)))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        weights = mixing.model.gate_weights(mixing.data.batch(rows[block]))
        assert weights is not None  # there are experts
        np.add.at(sums, domain[block], weights.double().numpy())
    counts = np.bincount(domain, minlength=data.num_domains)
    return {
        "experts": [{"domain": str(data.domains[index]), "slot": slot} for index, slot in mixing.experts],
        "rows": {
            str(name): (sums[index] / counts[index]).tolist()
            for index, name in enumerate(data.domains)
            if counts[index]
        },
    }


def _best_reachable(job: Job, data: TrainingSet) -> BestOnTest | None:
    """Return the AUC of the true click probability on the same test rows."""
    probability = true_probability(job.rows, data, job.settings)
    if probability is None:
        return None
    rows = data.rows("test")
    best = metrics.domain_metrics(
        np.asarray(data.label[rows]), probability, np.asarray(data.domain[rows], np.int64)
    )
    by_domain = {str(data.domains[index]): own.auc for index, own in best.by_domain.items()}
    return {"wauc": best.wauc, "by_domain": by_domain}
