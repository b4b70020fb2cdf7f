"""What the DAG files share, without heavy imports, so that Airflow parses them fast."""
