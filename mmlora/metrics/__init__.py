"""Metrics of click probabilities: by domain and pooled, with bootstrap intervals. Pure numpy, float64.

Sums first, ratios last: ``Sums`` adds up batches, and batches in any order and of any size give exactly the
same numbers as all rows at once. AUC is exact, ties counting half. A metric that isn't defined (the AUC of a
domain with one label only) is None, never a number; it is left out of the means, and listed.
"""

from mmlora.metrics.bootstrap import Difference, Interval, Intervals, compare, compare_all, differences
from mmlora.metrics.probabilities import ECE_BINS, ece, logloss
from mmlora.metrics.ranking import UserAuc, auc, gauc, macro_auc, wauc
from mmlora.metrics.report import DomainMetrics, Metrics
from mmlora.metrics.sums import Sums, domain_metrics

__all__ = [
    "ECE_BINS",
    "Difference",
    "DomainMetrics",
    "Interval",
    "Intervals",
    "Metrics",
    "Sums",
    "UserAuc",
    "auc",
    "compare",
    "compare_all",
    "differences",
    "domain_metrics",
    "ece",
    "gauc",
    "logloss",
    "macro_auc",
    "wauc",
]
