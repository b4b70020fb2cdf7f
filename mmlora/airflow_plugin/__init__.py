"""What the DAG files share; free of heavy imports, so that Airflow parses them fast."""
