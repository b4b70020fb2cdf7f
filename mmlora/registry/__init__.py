"""The registry: bundles composed of parts named by content, and MLflow's view of runs and aliases."""
