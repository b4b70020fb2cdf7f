"""Experiments: a grid of cells from one file, run in parallel and resumed cell by cell.

A cell is one arm (an adaptation, or a control) trained and tested on one data set, split and seed. Cells
share a training set, backbone or expert wherever theirs are the same.
"""
