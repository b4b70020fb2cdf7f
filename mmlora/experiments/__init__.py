"""Experiments: a grid of cells from one file, run in parallel and resumed cell by cell.

A cell is one arm (an adaptation, or a control) trained and tested on one data set, split and seed. Cells
share what they have in common: the training set, the backbone, the experts.
"""
