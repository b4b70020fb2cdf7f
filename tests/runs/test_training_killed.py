"""A training run that is killed in the middle of any phase leaves the parts of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

ON = date(2001, 4, 8)

# Trains; given a number, kills itself in the middle of that epoch, counted over all phases.
TRAIN = f"""
import os, signal, sys
from datetime import date
from mmlora.runs import steps as training
from mmlora.training import loop

kill_at, epochs = int(sys.argv[1]), 0
train_epoch = loop.train_epoch

class Deadly:
    def __init__(self, order):
        self.order = order
    def __len__(self):
        return len(self.order)
    def __getitem__(self, chosen):
        if chosen.start > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.order[chosen]

def counted(model, optimizer, data, order, *more, **named):
    global epochs
    epochs += 1
    return train_epoch(model, optimizer, data, Deadly(order) if epochs == kill_at else order, *more, **named)

loop.train_epoch = counted
run_id = training.prepare(date({ON.year}, {ON.month}, {ON.day}))
training.train_backbone(run_id)
for domain in training.expert_domains(run_id):
    training.train_expert(run_id, domain)
training.train_gate(run_id)
print(epochs)
"""


def train(kill_at: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", TRAIN, str(kill_at)], capture_output=True, text=True)


def steps(home: Path) -> dict[str, object]:
    """What each step left, less what the clock decides."""
    found = {}
    for file in (home / "runs" / "steps").glob("*.json"):
        record = json.loads(file.read_text())
        history = [(epoch["train_loss"], epoch["metric"]) for epoch in record["report"]["history"]]
        found[file.stem] = (record["part"], record["report"]["best_metric"], history)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_the_backbone_an_expert_and_the_gate(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MMLORA_TRAINING__BATCH_SIZE", "128")  # so that epochs have a middle
    monkeypatch.setenv("MMLORA_TRAINING__PATIENCE", "3")  # all 3 epochs of all 4 phases
    shutil.copytree(made_up_workspace, tmp_path / "whole")
    # Epochs, over all phases: backbone 1-3, experts 4-6 and 7-9, gate 10-12. Each call goes on from the last.
    for kill_at, phase, done in ((2, "backbone", 0), (4, "expert", 1), (7, "gate", 3)):
        killed = train(kill_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(steps(made_up_workspace)) == done, phase
        left = list((made_up_workspace / "runs" / "steps").glob("*.checkpoint/*"))
        assert [file.name for file in left] == ["state.safetensors"], phase
    last = train()
    assert last.stdout.split() == ["2"], f"epoch 1 of the gate was done already: {last.stderr}"
    assert not list((made_up_workspace / "runs" / "steps").glob("*.checkpoint"))

    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "whole"))
    whole = train()
    assert whole.stdout.split() == ["12"], whole.stderr
    assert steps(made_up_workspace) == steps(tmp_path / "whole")


@pytest.mark.slow
def test_two_at_once_train_each_step_once(made_up_workspace: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, "0"], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for _ in range(2)
    ]
    epochs = [int(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(epochs) == sum(len(history) for _, _, history in steps(made_up_workspace).values())
