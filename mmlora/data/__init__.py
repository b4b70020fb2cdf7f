"""Getting interactions and profiles in: readers that check, and the offline store that keeps every version.

The first room of the flow. `reader` takes anybody's Parquet or CSV, `movielens` MovieLens-1M; both return
the same pair of an interactions table and profile tables, which `store` writes as the canonical tables that
all later rooms read.
"""
