"""Feature-store-backed batch scoring of click-through rate across many domains, around MoE-MLoRA.

The public API is ``__all__``, described in docs/api.md. A name is imported when it is first used, so that
``import mmlora`` costs nothing: the command line and the parsing of DAG files depend on it.
"""

from typing import TYPE_CHECKING

from mmlora.numerics import settle

if TYPE_CHECKING:
    from mmlora.data.shop_truth import ShopTruth
    from mmlora.errors import (
        AccessError,
        CheckError,
        ContractError,
        DataError,
        MmloraError,
        TransientError,
        UsageError,
    )
    from mmlora.metrics import domain_metrics
    from mmlora.nights.load import score
    from mmlora.pipeline.backfill import backfill
    from mmlora.pipeline.publish import publish
    from mmlora.pipeline.read import read_scores
    from mmlora.pipeline.train import train

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "CheckError",
    "ContractError",
    "DataError",
    "MmloraError",
    "ShopTruth",
    "TransientError",
    "UsageError",
    "__version__",
    "backfill",
    "domain_metrics",
    "publish",
    "read_scores",
    "score",
    "train",
]

_MODULES = {
    "ShopTruth": "mmlora.data.shop_truth",
    "backfill": "mmlora.pipeline.backfill",
    "domain_metrics": "mmlora.metrics",
    "publish": "mmlora.pipeline.publish",
    "read_scores": "mmlora.pipeline.read",
    "score": "mmlora.nights.load",
    "train": "mmlora.pipeline.train",
}
"""Where each name is defined; the errors are in ``mmlora.errors``."""

settle()  # before anything that imports a part of mmlora can have torch compute

if not TYPE_CHECKING:  # a type checker would take any name for valid

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_MODULES.get(name, "mmlora.errors")), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
