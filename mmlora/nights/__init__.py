"""The parts of one domain's night: candidates, engine, checks of its size, and the staged load."""
