"""What the plots of studies share: titles, tooltips, and the looks of arms."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.figure import Figure

from mmlora.experiments.arms import ArmName
from mmlora.experiments.report.studies import Study, Variant
from mmlora.pages import drawing
from mmlora.pages.drawing import Plot
from mmlora.pages.measured import Measured, interval, signed
from mmlora.pages.style import Look

BASELINE = "pooled_domain"

# One colour per family of arms; controls are hollow.
_OF_ARMS: dict[ArmName, tuple[str, str, bool]] = {
    "pooled": ("grey", "o", True),
    "pooled_domain": ("grey", "o", False),
    "separate": ("purple", "s", False),
    "mlora": ("blue", "o", False),
    "mlora_matched": ("blue", "s", True),
    "moe_mlora": ("red", "o", False),
    "placebo_mlora": ("blue", "^", True),
    "placebo_moe_mlora": ("red", "^", True),
    "uniform_gate": ("orange", "s", True),
    "random_gate": ("orange", "D", True),
    "joint": ("green", "D", False),
}


def look_of(study: Study, variant: Variant) -> Look:
    """Return the look of a variant, which is that of its arm."""
    return Look(study.label(variant), *_OF_ARMS[variant.arm])


def make(study: Study, slug: str, title: str, figures: Iterable[Figure], caption: str) -> Plot:
    """Return the plot of a study from its panels."""
    return drawing.make(f"{slug}-{study.slug}", f"{title}: {study.title}", figures, caption)


def difference_tip(domain: str, look: Look, difference: Measured) -> str:
    """Return the tooltip of the point of a difference."""
    return f"{domain}, {look.label}: {signed(difference.value)} {interval(difference)}"


def mean_text(study: Study) -> str:
    """Return what the means of a study are over, as text."""
    count = len(study.backbones)
    return f"mean over {seeds(study)}" + (f" and {count} backbones" if count > 1 else "")


def seeds(study: Study) -> str:
    """Return the number of seeds of a study as text."""
    count = len(study.seeds())
    return f"{count} seed{'s' * (count != 1)}"
