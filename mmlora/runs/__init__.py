"""Training runs, and what they share with nights: training set, rows, contract, verdicts, champions."""
