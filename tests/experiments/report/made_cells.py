"""Synthetic cells in the format of an experiment's folder: scores are the true logit plus the arm's noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmlora.metrics import wauc

NOISE = {
    "pooled": 0.98,
    "pooled_domain": 0.90,
    "separate": 1.0,
    "mlora": 0.84,
    "mlora_matched": 0.83,
    "moe_mlora": 0.78,
    "placebo_mlora": 0.92,
    "placebo_moe_mlora": 0.90,
    "uniform_gate": 0.85,
    "random_gate": 0.87,
    "joint": 0.88,
}
SIZES = {"F": 0.25, "M": 0.75}


class MadeCells:
    """Writes cells under a folder.

    Args:
        folder: the experiment's folder.
        sizes: share of rows by domain.
        rows: number of test rows.
        users: number of users, each of one domain.
    """

    def __init__(
        self, folder: Path, sizes: Mapping[str, float] = SIZES, rows: int = 4000, users: int = 300
    ) -> None:
        self._folder, self._sizes, self._rows, self._users = folder, dict(sizes), rows, users
        self._truth: dict[str, Any] = {}

    def add(
        self,
        arm: str,
        *,
        seed: int = 0,
        data: str = "gender",
        backbone: str = "wdl",
        experts: int = 2,
        features: str = "ids",
        settings: Mapping[str, Any] | None = None,
        noise: float | None = None,
        dials: Sequence[str] = ("diversity", "sparsity"),
    ) -> str:
        """Write a cell and, if missing, its test rows; return its key."""
        settings = dict(settings or {})
        dial_values = [f"{name}{settings[name]}" for name in dials if name in settings]
        data_key = "-".join([data, features, str(seed), *dial_values])
        label, domain, _, logit = self._data(data_key, seed)
        expert_arm = arm not in ("pooled", "pooled_domain", "separate")
        mixed = expert_arm and arm not in ("mlora", "placebo_mlora")
        spread = NOISE[arm] if noise is None else noise
        if mixed and noise is None:
            spread -= 0.02 * (experts - 2)
        common = np.random.default_rng(1000 + seed).normal(size=len(label))
        own = np.random.default_rng(abs(hash_of(arm, backbone, seed, experts)) % 2**32).normal(
            size=len(label)
        )
        score = logit + spread * common + 0.12 * own
        probability = (1 / (1 + np.exp(1.2 - score))).astype(np.float32)
        names = list(self._sizes)
        cell = {
            "data": data,
            "features": features,
            "backbone": backbone,
            "arm": arm,
            "experts_per_domain": experts if mixed else int(expert_arm),
            "gate": "domain" if mixed and arm not in ("uniform_gate", "random_gate") else None,
            "split": "random",
            "seed": seed,
            "settings": settings,
        }
        key = f"{hash_of(json.dumps(cell, sort_keys=True)):016x}"
        path = self._folder / "cells" / key
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "scores.npy", probability)
        slots = [{"domain": name, "slot": slot} for name in names for slot in range(experts)]
        result = {
            "cell": cell,
            "data_key": data_key,
            "cell_key": key,
            "test": {
                "wauc": wauc(label, probability, domain),
                "without_auc": [n for i, n in enumerate(names) if len(set(label[domain == i])) == 1],
            },
            "by_domain": {},
            "validation_wauc": wauc(label, probability, domain),
            "parameters": {
                "backbone": 80_000 + 7_000 * (backbone != "wdl"),
                "experts": 4_000 * len(slots) if expert_arm else 0,
                "gate": 64 if mixed else 0,
            },
            "seconds": {"total": 40.0 + 30 * expert_arm + 25 * mixed * experts + 8 * (backbone != "wdl")},
            "gate_weights": {
                "experts": slots,
                "rows": {name: gate_row(slots, name) for name in names},
            }
            if arm == "moe_mlora"
            else None,
            "best_reachable": {"wauc": wauc(label, logit, domain), "by_domain": {}} if settings else None,
            "code_version": "0.1.0",
        }
        (path / "result.json").write_text(json.dumps(result))
        return key

    def _data(self, data_key: str, seed: int) -> Any:
        if data_key in self._truth:
            return self._truth[data_key]
        names, shares = list(self._sizes), np.array(list(self._sizes.values()))
        of_user = np.searchsorted(
            np.cumsum(shares / shares.sum()), (np.arange(self._users) + 0.5) / self._users
        )
        random = np.random.default_rng(seed)
        user = random.integers(0, self._users, self._rows).astype(np.int32)
        domain = of_user[user].astype(np.int32)
        logit = random.normal(size=self._rows) + np.random.default_rng(5).normal(0, 0.7, self._users)[user]
        label = (random.random(self._rows) < 1 / (1 + np.exp(1.2 - logit))).astype(np.int8)
        path = self._folder / "data" / data_key
        path.mkdir(parents=True, exist_ok=True)
        for name, values in (("label", label), ("domain", domain), ("user", user)):
            np.save(path / f"{name}.npy", values)
        count = np.bincount(domain, minlength=len(names))
        domains = [
            {
                "name": name,
                "train_rows": int(3 * count[i]),
                "test_rows": int(count[i]),
                "positives": int(label[domain == i].sum()),
                "users": int((of_user == i).sum()),
                "items": 500,
                "density": 4 * count[i] / max(1, 500 * (of_user == i).sum()),
            }
            for i, name in enumerate(names)
        ]
        (path / "domains.json").write_text(json.dumps({"domains": domains}))
        self._truth[data_key] = label, domain, user, logit
        return self._truth[data_key]


def gate_row(slots: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return weights that favour the domain's own experts and differ by slot."""
    raw = np.array(
        [(2.5 if s["domain"] == name else 1.0) + 0.3 * s["slot"] + 0.05 * i for i, s in enumerate(slots)]
    )
    return list((raw / raw.sum()).round(4))


def hash_of(*parts: object) -> int:
    """Return a number that is the same in every run."""
    import hashlib

    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:15], 16)
