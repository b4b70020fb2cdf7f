"""Threads compute blocks in order, one torch thread each, and leave torch as it was."""

import threading

import pytest
import torch

from mmlora.scoring.workers import workers


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_from_so_many_threads_of_one_torch_thread_each(threads: int) -> None:
    before, meeting = torch.get_num_threads(), threading.Barrier(threads)

    def meet(value: int) -> tuple[int, int, str]:
        meeting.wait(timeout=20)
        return value, torch.get_num_threads(), threading.current_thread().name

    with workers(threads) as run:
        found = list(run(meet, range(threads)))
    assert [value for value, _, _ in found] == list(range(threads))
    assert {torch_threads for _, torch_threads, _ in found} == {1}
    assert len({name for _, _, name in found}) == threads
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_block_reaches_the_caller_and_threads_are_given_back(threads: int) -> None:
    before = torch.get_num_threads()

    def fail(value: int) -> int:
        if value == 5:
            raise ZeroDivisionError
        return value

    with pytest.raises(ZeroDivisionError), workers(threads) as run:
        list(run(fail, range(100)))
    assert torch.get_num_threads() == before
