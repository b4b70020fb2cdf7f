"""A Feast offline store with point-in-time joins on DuckDB and Parquet."""
