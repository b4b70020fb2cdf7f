"""The registry: bundles as content-named parts and a composition, and MLflow's view of runs and aliases."""
