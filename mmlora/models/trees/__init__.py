"""Gradient-boosted trees as a model: trained by LightGBM, scored by tensors, side by side.

A tree's leaf is found without walking down (QuickScorer, Lucchese et al., SIGIR 2015). Leaves are numbered
from left to right, a bit each. A node whose condition is false rules out the leaves on its left; the row's
leaf is the lowest that no node rules out. What is left after all nodes is an ``and`` over them, so a user's
nodes and an item's are worked through once each, and a pair costs an ``and`` of two numbers a tree.

Leaf values are whole multiples of 2**-24, so their sum is exact in any order: a row's score has the same bits
in every block, on every number of threads, and from sides as from whole rows.
"""
