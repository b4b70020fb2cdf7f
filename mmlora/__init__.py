"""Feature-store-backed batch scoring of click-through rate across many domains, around MoE-MLoRA."""

__version__ = "0.1.0"
