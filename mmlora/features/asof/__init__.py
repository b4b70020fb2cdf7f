"""An offline store for Feast that joins as of a moment, on DuckDB and Parquet."""
