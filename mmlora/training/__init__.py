"""Training: data as encoded columns, the three phases, calibration and evaluation."""
