"""Feature-store-backed batch scoring of click-through rate across many domains, around MoE-MLoRA."""

from mmlora.numerics import settle

__version__ = "0.1.0"

settle()  # before anything that imports a part of mmlora can have torch compute
