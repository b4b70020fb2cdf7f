"""Features: activity computed in DuckDB, and point-in-time retrieval through Feast.

``build`` computes the activity views from the interactions; ``repo.FeatureRepo`` registers all views with
Feast, resolves the feature contract and retrieves features; ``asof`` is the Feast offline store that it uses.
"""
