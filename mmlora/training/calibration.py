"""Fitting a calibration on a training set's validation rows."""

from __future__ import annotations

import numpy as np

from mmlora.models.builder import Model
from mmlora.models.calibration import Calibration, calibrate
from mmlora.training.epoch import TrainingData
from mmlora.training.loop import predict
from mmlora.training.rows import blocks, scratch


def fit_calibration(model: Model, data: TrainingData) -> Calibration:
    """Fit on the validation split; if its labels are all of one class, change nothing and say so."""
    rows = data.rows("validation")
    logits, labels = predict(model, data, rows)
    domain = scratch(len(rows), np.int32)
    for place, block in blocks(rows):
        domain[place] = data.domain[block]
    return calibrate(logits, labels, domain, data.num_domains)
