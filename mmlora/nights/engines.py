"""Where a night is scored: on this machine or a Ray cluster, on which device and with which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.names import Device, EngineName

if TYPE_CHECKING:
    from mmlora.scoring.work import Engine
    from mmlora.settings import Settings


def choose_engine(
    settings: Settings,
    engine: EngineName | None,
    ray_address: str | None,
    device: Device | None = None,
) -> Engine:
    """Return the requested engine, or by default that of the settings.

    Raises:
        UsageError: the engine isn't installed, it doesn't take the given address or device, or this
            machine doesn't have the device or doesn't support the precision.
    """
    from mmlora.scoring.devices import require_precision, torch_device

    asked, name = settings.scoring, engine or settings.scoring.engine
    memory = asked.memory_mb << 20
    if name == "ray":
        from mmlora.scoring.ray_engine import RayEngine

        if device == "cuda":
            raise UsageError("the engine `ray` computes on CPUs: leave out --device, or use --engine local")
        require_precision(asked.precision, "cpu")
        address = asked.ray_address if ray_address is None else ray_address
        return RayEngine(address, threads=asked.ray_threads, memory=memory)
    if ray_address is not None:
        raise UsageError(f"a Ray address is only for the engine `ray`, not for `{name}`: use --engine ray")
    from mmlora.scoring.score import LocalEngine

    chosen = LocalEngine(threads=settings.training.threads, device=device or asked.device, memory=memory)
    require_precision(asked.precision, torch_device(chosen.device))
    return chosen
