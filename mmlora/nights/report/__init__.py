"""The report of one night: its figures, plots and page."""
