"""Scoring: candidates, fixed blocks, top-k, staged Parquet.

A load is one attempt at one domain and date. This package doesn't use the warehouse or the registry: the
pipeline passes in a model and side features, and publishes the staged rows.
"""
