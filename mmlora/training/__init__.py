"""Training: data as encoded columns, the three phases, calibration and evaluation."""

TRAINING_REVISION: int = 6
"""Of the training code: raise it when the same rows, settings and seed give other weights.

What was trained is kept under names that this is a part of, so what another revision left isn't
taken for new.
"""
