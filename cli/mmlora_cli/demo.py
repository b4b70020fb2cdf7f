"""``make demo``: the nightly job, end to end, on MovieLens-1M by occupation, through Airflow."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from mmlora_cli.demos import Demo, run_demo, show_scores, show_training
from mmlora_cli.output import note

if TYPE_CHECKING:
    from mmlora.pipeline.training_summary import TrainingSummary

NIGHT = date(2000, 12, 31)


def main() -> None:
    """Import, train as of a day, score the next night, and show the results."""
    run_demo(
        Demo(
            home="var",
            as_of=date(2000, 12, 30),
            night=NIGHT,
            load=_load,
            show=_show,
            next_steps=(
                ".venv/bin/mmlora read --domain farmer --limit 10",
                ".venv/bin/mmlora backfill --domain farmer --start 2000-12-28 --end 2000-12-30",
                "make airflow",
            ),
        )
    )


def _load() -> None:
    from mmlora.pipeline.data import import_movielens

    note("MovieLens-1M (research use, https://grouplens.org/datasets/movielens/1m/), domains by occupation")
    report = import_movielens(domain_by="occupation")
    note(f"  {report.interactions:,} interactions imported, {report.unchanged:,} already stored")


def _show(trained: TrainingSummary) -> None:
    show_training(trained, NIGHT)
    show_scores("artist", NIGHT)


if __name__ == "__main__":
    main()
