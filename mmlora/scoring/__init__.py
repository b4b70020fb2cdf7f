"""Scoring: candidates, fixed blocks, top-k, staged Parquet.

One load is one try at one domain and date. Nothing here knows the warehouse or the registry: the pipeline
hands in a model and side features, and has the staged rows published.
"""
