"""The climb from one's own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from mmlora.settings import TrainingSettings
from mmlora.training.search import LEAST_GAIN, OF_EXPERTS, TUNED, climb

OWN = {name: getattr(TrainingSettings(), name) for name in TUNED}


def recorded(
    worth: Callable[[Mapping[str, Any]], float], most: int | None = None
) -> tuple[list[Mapping[str, Any]], Callable[[Mapping[str, Any]], float | None]]:
    """A measure, and the settings that it was asked for; after ``most`` there is no more time."""
    asked: list[Mapping[str, Any]] = []

    def measure(settings: Mapping[str, Any]) -> float | None:
        if most is not None and len(asked) == most:
            return None
        asked.append(settings)
        return worth(settings)

    return asked, measure


def peak(settings: Mapping[str, Any]) -> float:
    """Best at a lower learning rate and twice the width."""
    return -abs(settings["learning_rate"] - 0.00016) * 1000 - abs(settings["embedding_dim"] - 32) / 100


def test_the_first_trial_is_the_users_own_settings_and_each_changes_one_of_the_best() -> None:
    asked, measure = recorded(peak)
    climb(OWN, TUNED, measure)
    assert asked[0] == OWN
    best = OWN
    for settings in asked[1:]:
        assert sum(settings[name] != best[name] for name in TUNED) == 1
        best = settings if peak(settings) > peak(best) else best


def test_the_steps_lead_to_the_best_and_say_what_each_was_worth() -> None:
    steps = climb(OWN, TUNED, peak)
    assert all(step.metric_after >= step.metric_before + LEAST_GAIN for step in steps)
    assert [(step.setting, step.before, step.after) for step in steps] == [
        ("learning_rate", 0.001, 0.0004),
        ("learning_rate", 0.0004, 0.00016),
        ("embedding_dim", 16, 32),
    ]
    assert all(later.metric_before == step.metric_after for step, later in pairwise(steps))


def test_no_settings_are_tried_twice() -> None:
    asked, measure = recorded(peak)
    climb(OWN, TUNED, measure)
    assert len(asked) == len({repr(sorted(settings.items())) for settings in asked})


def test_a_gain_within_noise_does_not_count() -> None:
    assert climb(OWN, TUNED, lambda settings: 0.7 + settings["learning_rate"] / 100) == ()


def test_settings_without_a_better_trial_are_kept() -> None:
    asked, measure = recorded(lambda settings: 0.5)
    assert climb(OWN, TUNED, measure) == ()
    assert len(asked) > len(TUNED), "a step up and one down of nearly each"


def test_the_steps_so_far_count_when_time_runs_out() -> None:
    whole, measure = recorded(peak)
    climb(OWN, TUNED, measure)
    for most in range(1, len(whole)):
        asked, measure = recorded(peak, most)
        steps = climb(OWN, TUNED, measure)
        assert asked == whole[:most]
        assert max(map(peak, asked)) == (steps[-1].metric_after if steps else peak(OWN))


def test_only_the_settings_asked_for_change() -> None:
    asked, measure = recorded(peak)
    climb(OWN, OF_EXPERTS, measure)
    assert {name for settings in asked for name in TUNED if settings[name] != OWN[name]} == set(OF_EXPERTS)


@pytest.mark.parametrize("sign", [-1, 1])
def test_every_value_that_is_tried_is_a_valid_setting(sign: int) -> None:
    def size(settings: Mapping[str, Any]) -> float:
        return sign * sum(sum(value) if isinstance(value, tuple) else value for value in settings.values())

    asked, measure = recorded(size, 60)
    climb(OWN, TUNED, measure)
    for settings in asked:
        chosen = TrainingSettings(**settings)
        assert chosen.rank <= min(chosen.hidden_units)


def test_a_rank_given_as_a_share_stays_a_share() -> None:
    asked, measure = recorded(lambda settings: settings["rank"], 20)
    climb({**OWN, "rank": 0.25}, ("rank",), measure)
    assert [settings["rank"] for settings in asked] == [0.25, 0.125, 0.5]
