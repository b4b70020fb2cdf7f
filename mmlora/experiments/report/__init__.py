"""Reports of experiments as Markdown and as one HTML page: findings, tables with intervals, and plots."""
