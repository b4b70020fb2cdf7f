"""The phases: cross terms, backbone on all domains, each expert on its own, the gate on all.

Everything a phase doesn't train is frozen bit for bit. Each phase stops early on its own metric, with its own
counters, and keeps the weights it started from if it doesn't help: an expert then stays at zero, which
changes no score.
"""

from mmlora.training.phases.backbone import train_backbone, train_joint
from mmlora.training.phases.crosses import train_crosses
from mmlora.training.phases.expert import batch_size_for, train_expert
from mmlora.training.phases.gate import train_gate
from mmlora.training.phases.phase import Expert, PhaseResult

__all__ = [
    "Expert",
    "PhaseResult",
    "batch_size_for",
    "train_backbone",
    "train_crosses",
    "train_expert",
    "train_gate",
    "train_joint",
]
