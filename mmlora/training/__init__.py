"""Training: data as encoded columns, the three phases, calibration and evaluation."""

TRAINING_REVISION: int = 7
"""Revision of the training code: raise it when the same rows, settings and seed give different weights.

It is part of the names under which trained results are stored, so results of another revision aren't reused.
"""
