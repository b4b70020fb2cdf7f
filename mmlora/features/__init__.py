"""Features: activity computed in DuckDB, and Feast behind one door to read them as they were known.

``build`` writes the activity views from the interactions; ``repo.FeatureRepo`` registers all views with
Feast, resolves the feature contract and retrieves; ``asof_store`` is the Feast offline store behind it.
"""
