"""A Ray cluster: one that runs already, or one that lives on this machine as long as the sweep."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.executors import Pool, Report, Task, carry_out

AHEAD = 2
"""Tasks handed out for each core, so that none waits for the next."""


@dataclass(frozen=True)
class Ray:
    """address: of a running cluster, or auto; null starts one here. workers: cores used; null for all.

    On a cluster, the output folder must be the same on every node, and kalmean installed there.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"executor.workers={self.workers} is not valid; it must be an int >= 1, or null")

    @contextmanager
    def pool(self, output: Path) -> Iterator[Pool]:
        """Connect to the cluster, or start one; it, or the connection, ends with the sweep."""
        try:
            import ray
        except ImportError as error:
            raise ValueError("executor=ray needs Ray; install it with pip install 'kalmean[ray]'") from error
        settings: dict[str, Any] = {"address": self.address, "log_to_driver": False, "logging_level": "error"}
        if self.address is None:
            settings |= {"address": "local", "num_cpus": self.workers, "include_dashboard": False}
        if self.address is not None and re.fullmatch(r"[\w.-]+:\d+", self.address):
            host, _, port = self.address.rpartition(":")
            try:  # Ray itself would wait for minutes
                socket.create_connection((host, int(port)), timeout=10.0).close()
            except OSError as error:
                raise ValueError(f"executor.address={self.address}: no cluster answers ({error})") from error
        with _guarded() if self.address is None else nullcontext():
            try:
                ray.init(**settings)
                resources: Any = ray.cluster_resources  # which has no types
                cores = int(resources().get("CPU", 1))
            except Exception as error:  # Ray raises that very class where its daemons do not start
                line = " ".join(str(error).split())
                raise ValueError(f"executor.address={self.address}: no cluster answers ({line})") from error
            try:
                yield _Tasks(ray, output.absolute(), self.workers or cores)
            finally:
                ray.shutdown()


@contextmanager
def _guarded() -> Iterator[None]:
    """See the processes of a cluster that is started meanwhile gone when this one is, however it ends.

    Some of Ray's outlive a killed driver by a minute or more. What a process starts inherits its environment,
    by which another one finds it, that waits for the end of a pipe.
    """
    mark = uuid.uuid4().hex
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, f"{_MARK}={mark}"], stdin=subprocess.PIPE, start_new_session=True
    )
    os.environ[_MARK] = mark
    try:
        yield
    finally:
        del os.environ[_MARK]
        guard.communicate()


_MARK = "KALMEAN_RAY"
_GUARD = """\
import contextlib, os, signal, sys, time
sys.stdin.read()
for _ in range(5):  # one may just have started another
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{name}/environ", "rb") as file:
                if sys.argv[1].encode() in file.read().split(b"\\0"):
                    os.kill(int(name), signal.SIGKILL)
    time.sleep(0.1)
"""


class _Tasks:
    """Tasks that the cluster has been given."""

    seconds = 0.25  # a hundred times what it takes Ray to hand one out

    def __init__(self, ray: Any, output: Path, workers: int) -> None:
        self.ray, self.output, self.count = ray, output, workers
        # One that dies is split by the runner, to find the cell that kills; Ray would repeat it whole.
        self._carry_out = ray.remote(num_cpus=1, max_retries=0)(carry_out)
        self._given: dict[Any, Task] = {}

    def slots(self) -> int:
        """Some more than there are cores."""
        return AHEAD * self.count - len(self._given)

    def submit(self, task: Task) -> None:
        """Give the task to the cluster."""
        self._given[self._carry_out.remote(self.output, task)] = task

    def finished(self, patience: float) -> Iterator[tuple[Task, Report]]:
        """Tasks whose answer has come, and those whose worker died."""
        if not self._given:
            return
        ready, _ = self.ray.wait(list(self._given), timeout=patience)
        for reference in ready:
            try:
                report: Report = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                report = Report(lost=f"the worker died ({type(error).__name__})")
            yield self._given.pop(reference), report

    def cancel(self) -> Sequence[Task]:
        """None: those few that are ahead are let run."""
        return []
