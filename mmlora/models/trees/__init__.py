"""Gradient-boosted trees as a model: trained by LightGBM, scored with tensors, each side on its own.

A tree's leaf is found without walking down (QuickScorer, Lucchese et al., SIGIR 2015). Leaves are numbered
from left to right, one bit each. A node whose condition is false rules out the leaves on its left; the row's
leaf is the lowest that no node rules out. The leaves that remain are the ``and`` over all nodes, so a user's
and an item's nodes are evaluated once each, and a pair costs one ``and`` of two numbers per tree.

Leaf values are integer multiples of 2**-24, so their sum is exact in any order: a row's score has the same
bits in every block, with any number of threads, and whether computed from sides or from whole rows.
"""
