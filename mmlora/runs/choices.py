"""Combine settings, choices and a base into the settings of a training run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mmlora.errors import UsageError
from mmlora.runs.contract import feature_group
from mmlora.runs.exchange import champion_bundle, refuse_without_experts
from mmlora.runs.starting import COLD
from mmlora.runs.verdicts import verdicts_as_of
from mmlora.setting_faults import faults_of
from mmlora.settings import TrainingSettings
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle
    from mmlora.training.dataset import TrainingSet

logger = logging.getLogger(__name__)

# Parts of a model's specification that follow from the training set instead of settings.
_DATA_SPEC = ("fields", "num_domains")


def choose(settings: TrainingSettings, choices: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings, overridden by the choices that aren't None.

    Raises:
        UsageError: choices are unknown, out of range or incompatible, or a package that trains the backbone
            isn't installed.
    """
    from mmlora.training.refusals import refuse_trees

    given = {name: value for name, value in choices.items() if value is not None}
    if given.get("backbone", settings.backbone) == "gbdt":
        given["crosses"] = False  # trees learn interactions themselves
    try:
        chosen = TrainingSettings(**{**settings.model_dump(), **given})
    except ValidationError as error:
        raise UsageError(f"training: {'; '.join(faults_of(error))}") from None
    refuse_trees(chosen.backbone, chosen.adaptation)
    if chosen.backbone == "gbdt" and chosen.start != COLD:
        raise UsageError(
            f"training: start {chosen.start}: the trees of gbdt begin without weights; use the start cold"
        )
    if (chosen.split == "file") != (chosen.split_file is not None):
        raise UsageError("training: the split `file` and a split_file go together; give both or neither")
    if chosen.split == "random" and chosen.features == "all":
        raise UsageError(
            "training: with the split `random`, activity features carry test labels into training rows, so "
            "its metrics would flatter; use the split `time` or `user`, or the features `ids` or `profiles`"
        )
    if chosen.split_file and not chosen.split_file.is_file():
        raise UsageError(f"training: split_file {chosen.split_file} does not exist or is not a file")
    return chosen


def choose_base(workspace: Workspace, version: str, domain: str | None) -> Bundle:
    """Return the bundle on which a domain's experts are to be trained.

    Args:
        workspace: the workspace.
        version: a model version, or ``champion`` for the model that scores the domain now.
        domain: the domain.

    Raises:
        UsageError: no domain is given, the version does not exist, or it has no expert of the domain.
    """
    if domain is None:
        raise UsageError("a base goes with one domain, whose experts are trained on it: give --domain")
    target = workspace.domain(domain)
    champion = version == "champion"
    base = champion_bundle(workspace, target) if champion else workspace.bundles.load(version)
    refuse_without_experts(base, target)
    return base


def choose_on_base(settings: TrainingSettings, choices: Mapping[str, Any], base: Bundle) -> TrainingSettings:
    """Return the settings with the model and features of a base, and the choices for everything else.

    Raises:
        UsageError: a choice differs from the base, the split is ``random``, or for the reasons of
            :func:`choose`.
    """
    spec = base.model_spec().to_dict()
    fixed = {name: value for name, value in spec.items() if name not in _DATA_SPEC}
    fixed["features"], fixed["start"] = feature_group(base), COLD  # the base's backbone stays as it is
    differing = [
        f"{name} {choices[name]} (it has {value})"
        for name, value in fixed.items()
        if choices.get(name) not in (None, value)
    ]
    if differing:
        raise UsageError(
            f"training: the base {base.manifest.model_version} decides the model, which leaves no choice of "
            f"{', '.join(differing)}: leave that out, or train a whole model"
        )
    chosen = choose(settings, {**choices, **fixed})
    if chosen.split == "random":
        raise UsageError(
            "training: with the split `random`, rows that the base was trained on may now be test rows, so "
            "its metrics would flatter; use the split `time` or `user`"
        )
    return chosen


def choose_expert_domains(
    workspace: Workspace, as_of: date, settings: TrainingSettings, data: TrainingSet, only: str | None
) -> list[str]:
    """Return the domains with training rows and the verdict ``rich``, or only ``only`` if it is given.

    Raises:
        UsageError: ``only`` isn't one of them.
    """
    if settings.adaptation == "none":
        return []
    verdicts = verdicts_as_of(workspace, as_of)
    rich = {domain for domain, verdict in verdicts.items() if verdict.verdict == "rich"}
    names = [str(domain) for domain in data.domains if domain in rich]
    if only is not None and only not in names:
        raise UsageError(
            f"domain {only!r} trains no expert as of {as_of}; these do: {', '.join(names) or 'none'}"
        )
    if not names:
        logger.warning(
            "no domain is rich as of %s, so %s has no expert to train: the backbone alone is trained "
            "(`mmlora validate --as-of %s` says what each domain lacks)",
            as_of,
            settings.adaptation,
            as_of,
        )
    return names if only is None else [only]
