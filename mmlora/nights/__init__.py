"""What one night of one domain takes: candidates, engine, checks of its size, and the staged load."""
