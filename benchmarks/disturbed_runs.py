"""Runs that can be disturbed: their commands, the machines that they use, and a reader of their output."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from ray.cluster_utils import Cluster

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError

_ROOT = Path(__file__).parent.parent
_SHARD_PAIRS, _TOKENS_PER_SECOND = 50, 40_000
_MAX_ATTEMPTS, _HANGS_SECONDS = 50, 900


@dataclass
class ScoredRun:
    """The command of a run, and the cluster that it runs on."""

    tables: str
    """Folder or URI of requests, titles and artworks."""
    address: str
    log: Path

    def start(self, output: str) -> subprocess.Popen[bytes]:
        """Starts the job."""
        flags = {name: storage.join(self.tables, name) for name in ("requests", "titles", "artworks")}
        flags |= {"output": output, "model": "smollm2", "engine": "fake", "engines": "2"}
        flags |= {"shard-pairs": str(_SHARD_PAIRS), "tokens-per-second": str(_TOKENS_PER_SECOND)}
        command = [
            sys.executable,
            str(_ROOT / "jobs/score.py"),
            *(f"--{name}={value}" for name, value in flags.items()),
        ]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                command, env={**os.environ, "RAY_ADDRESS": self.address}, stdout=log, stderr=log, start_new_session=True
            )

    def last_line(self) -> str:
        """Returns the last line of the log."""
        return self.log.read_text(errors="replace").strip().splitlines()[-1]


@dataclass
class Reader:
    """Reads an output repeatedly, as a service does that serves from it."""

    output: str
    wrong: list[str] = field(default_factory=list)
    reads: int = 0
    written: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By the name of a part, the objects that have had it; on a local disk only."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Reads in a thread until the end of the block, and once more after it."""
        ended = threading.Event()

        def read() -> None:
            seen = False
            while not ended.wait(0.02):
                seen = self._read(seen)
            self._read(seen)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _read(self, seen: bool) -> bool:
        self.reads += 1
        try:
            for file in storage.find_files(self.output):
                if not storage.is_uri(file):
                    self.written[file].add(os.stat(file).st_ino)
            manifest = storage.read_manifest(self.output)
            if manifest is None:
                if seen:
                    self.wrong.append("the manifest disappeared")
                return seen
            parts = [storage.open_parquet(storage.join(self.output, part)) for part in manifest["parts"]]
            if sum(part.metadata.num_rows for part in parts) != manifest["pairs"]:
                self.wrong.append("a manifest without all pairs")
        except InputError as error:
            self.wrong.append(str(error))
        return True


class Machines:
    """A head and two nodes, each a Ray of its own on this machine."""

    def __init__(self) -> None:
        """Starts them."""
        self.start()

    def start(self) -> None:
        """Starts all of them again."""
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]
        self._cluster.wait_for_nodes()
        self.address = self._cluster.address

    def stop(self) -> None:
        """Stops what is left of them."""
        self._cluster.shutdown()

    def lose_node(self) -> None:
        """Kills a node that is not the head."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def add_node(self) -> None:
        """Replaces the lost node."""
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def lose_head(self) -> None:
        """Kills the head's processes."""
        head: Any = self._cluster.head_node
        head.kill_all_processes(check_alive=False, allow_graceful=False)


def rows_of(output: str) -> pa.Table:
    """Returns a run's rows in the order of their pairs, without the time of scoring and what its own key makes."""
    order = [("user_id", "ascending"), ("title_id", "ascending")]
    return read_table(output, "predictions").drop(["scored_at", "fingerprint"]).sort_by(order)


def kill(target: str, driver: subprocess.Popen[bytes], machines: Machines, rng: random.Random) -> bool:
    """Kills the target, an actor as soon as there is one; returns whether the job was still running."""
    while driver.poll() is None:
        if target == "driver":
            os.kill(driver.pid, signal.SIGKILL)
        elif target == "node":
            machines.lose_node()
        elif target == "head":
            machines.lose_head()
        else:
            below = psutil.Process().children(recursive=True)  # of this suite's Ray and no other
            actors = [each.pid for each in below if f"({target})" in _title(each)]
            if not actors:
                time.sleep(0.05)
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(actors), signal.SIGKILL)
        return True
    return False


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def run_to_end(run: ScoredRun, output: str, first: subprocess.Popen[bytes]) -> int:
    """Waits for a job, and repeats its command until it succeeds; returns the number of attempts."""
    attempts, process = 1, first
    while wait(process):
        if attempts == _MAX_ATTEMPTS:
            raise SystemExit(f"not finished after {attempts} attempts: {run.last_line()}")
        attempts, process = attempts + 1, run.start(output)
    return attempts


def wait(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit code of a job; kills a job that hangs because its head is gone."""
    try:
        return process.wait(timeout=_HANGS_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
