"""What a training run is, and what runs and nights share: set, rows, contract, verdicts, champions."""
