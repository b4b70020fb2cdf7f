"""Phase 0: the cross terms, fitted on their own on all domains."""

from __future__ import annotations

from dataclasses import replace

from mmlora.models.builder import build_model
from mmlora.models.spec import ModelSpec
from mmlora.training.checkpoint import Checkpoint, NoCheckpoint
from mmlora.training.crosses import fit_crosses, passes_over
from mmlora.training.epoch import TrainingData
from mmlora.training.history import weigh_history
from mmlora.training.loop import Fit, TrainingOptions, reproducible
from mmlora.training.observer import Observer
from mmlora.training.phases.phase import CROSSES_SEED, Phase, PhaseResult, all_domains
from mmlora.training.progress import TrainingProgress
from mmlora.training.warm import WarmStart


def train_crosses(
    spec: ModelSpec,
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    *,
    refit: bool = False,
    history_weight: float = 0.0,
    warm: WarmStart | None = None,
) -> PhaseResult:
    """Phase 0: fit only the cross terms, on all domains; validation rows choose the weight of the history.

    Args:
        spec: the model's specification, with cross terms.
        data: all domains' rows.
        options: seed, threads and device.
        observer: called after every pass.
        checkpoint: saved after every pass, to resume from; the caller clears it at the end.
        refit: whether all rows are for training, so that nothing can be measured.
        history_weight: with ``refit``, the weight of the item history that was chosen before.
        warm: the weights to begin with; None for a cold start.

    Raises:
        DataError: there are no training rows, or no validation rows.
    """
    rows, validation = all_domains(data, refit=refit)
    run = Phase("crosses", None, 0, rows, validation, options, observer, checkpoint)
    # Steps are short, so the batches prepared beside them need the second thread more than they do.
    with reproducible(replace(options, threads=1), CROSSES_SEED) as generator:
        model = build_model(spec).to(options.torch_device)
        assert model.crosses is not None
        observer.phase_start("crosses", None, rows=len(rows), max_epochs=passes_over(len(rows)))
        progress = fit_crosses(
            model.crosses,
            data,
            rows,
            measure=None if refit else lambda: validation.measure(model),
            higher_is_better=validation.metric != "logloss",
            generator=generator,
            on_epoch=lambda record: observer.epoch("crosses", None, record),
            checkpoint=checkpoint or NoCheckpoint(),
            warm=warm,
        )
        fit = _fit_of(progress)
        report = run.report(fit)
        if model.crosses.history and refit:
            model.crosses.history_weight.fill_(history_weight)
        elif model.crosses.history:
            gain = weigh_history(model, data, validation.rows, seed=options.seed)
            report = replace(report, note="; ".join(filter(None, (report.note, str(gain)))), gain=gain.wauc)
            if gain.weight:
                report = replace(report, best_metric=validation.measure(model))
    observer.phase_end(report)
    return PhaseResult(model.cross_state(), report)


def _fit_of(progress: TrainingProgress) -> Fit:
    last, history = progress.history[-1], tuple(progress.history)
    return Fit(progress.start_metric, last.metric, last.epoch, history, progress.seconds)
