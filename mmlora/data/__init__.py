"""Importing interactions and profiles: readers that check, and the offline store that keeps every version.

This is the first step of the flow. `reader` reads any Parquet or CSV, `movielens` reads MovieLens-1M; both
return an interactions table and profile tables, which `store` writes as the canonical tables that all later
steps read.
"""
