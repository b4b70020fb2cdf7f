"""Reports of experiments, as Markdown and one HTML page: what was found, how sure that is, pictures of it."""

from mmlora.reporting.experiment import write_report

__all__ = ["write_report"]
