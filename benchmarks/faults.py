"""Kills nights at random moments, starts them twice, fails their storage, and looks at what is left.

A night of made-up requests runs on a Ray cluster of two nodes on this machine, with a null engine that takes its time.
The driver, an actor, a node or the head is killed with SIGKILL; then the same command is given again until it ends
well. All the while a reader looks at the output as a service would. In the end every pair must be there once, as in the
night that nobody disturbed, and no look may have shown anything but no night or the whole one.

`python benchmarks/faults.py --folder /tmp/world` prints Markdown tables and fails if anything was lost or doubled.
`benchmarks/results/faults.md` keeps what it gave.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import tyro
from object_store import KEY, SECRET, Proxy, s3_server, uri
from ray.cluster_utils import Cluster
from scoring import write_world

from artsel_ray import storage
from artsel_ray.errors import InputError

_ROOT = Path(__file__).parent.parent
_SHARD_PAIRS, _TOKENS_PER_SECOND = 50, 40_000
_TARGETS = ("driver", "Scorer", "node", "head", "Renderer", "Writer")
_TAKEN = "another job has taken over"
_MAX_RUNS, _HANGS_SECONDS = 50, 900


@dataclass
class ScoredRun:
    """What is asked for, and the cluster that it runs on."""

    tables: str
    """Folder or URI of requests, titles and artworks."""
    address: str
    log: Path

    def start(self, output: str) -> subprocess.Popen[bytes]:
        """Starts the job."""
        flags = {name: storage.join(self.tables, name) for name in ("requests", "titles", "artworks")}
        flags |= {"output": output, "model": "smollm2", "engine": "null", "engines": "2"}
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
        """Returns what a job said last."""
        return self.log.read_text(errors="replace").strip().splitlines()[-1]


@dataclass
class Reader:
    """Looks at an output all the time, as a service does that serves from it."""

    output: str
    wrong: list[str] = field(default_factory=list)
    looks: int = 0
    written: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By name of a part, the objects that have had it; on a local disk."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Reads in a thread until the end of the block, and once more behind it."""
        ended = threading.Event()

        def read() -> None:
            seen = False
            while not ended.wait(0.02):
                seen = self._look(seen)
            self._look(seen)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _look(self, seen: bool) -> bool:
        self.looks += 1
        try:
            for file in storage.find_files(self.output):
                if not storage.is_uri(file):
                    self.written[file].add(os.stat(file).st_ino)
            manifest = storage.read_manifest(self.output)
            if manifest is None:
                if seen:
                    self.wrong.append("the manifest went away")
                return seen
            parts = [storage.open_parquet(storage.join(self.output, part)) for part in manifest["parts"]]
            if sum(part.metadata.num_rows for part in parts) != manifest["pairs"]:
                self.wrong.append("a manifest without all of its pairs")
        except InputError as error:
            self.wrong.append(str(error))
        return True


class Machines:
    """A head and two nodes, each a Ray of its own on this machine."""

    def __init__(self) -> None:
        """Starts them."""
        self.start()

    def start(self) -> None:
        """Starts all of them anew."""
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
        """Puts one in the place of the lost one."""
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def lose_head(self) -> None:
        """Kills the head's processes."""
        head: Any = self._cluster.head_node
        head.kill_all_processes(check_alive=False, allow_graceful=False)


def rows_of(output: str) -> pa.Table:
    """Returns a night's rows in the order of their pairs, without the time of scoring."""
    order = [("user_id", "ascending"), ("title_id", "ascending")]
    return storage.read_table(output, "predictions").drop(["scored_at"]).sort_by(order)


def kill(target: str, driver: subprocess.Popen[bytes], machines: Machines, rng: random.Random) -> bool:
    """Kills the target; an actor as soon as there is one. Returns whether the job was still running."""
    while driver.poll() is None:
        if target == "driver":
            os.kill(driver.pid, signal.SIGKILL)
        elif target == "node":
            machines.lose_node()
        elif target == "head":
            machines.lose_head()
        else:
            below = psutil.Process().children(recursive=True)  # of this campaign's Ray and no other
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


def run_to_end(night: ScoredRun, output: str, first: subprocess.Popen[bytes]) -> int:
    """Waits for a job, and gives its command again until it ends well. Returns the runs."""
    runs, process = 1, first
    while _wait(process):
        if runs == _MAX_RUNS:
            raise SystemExit(f"not done after {runs} runs: {night.last_line()}")
        runs, process = runs + 1, night.start(output)
    return runs


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Returns the exit code of a job; one that hangs because its head is gone is killed."""
    try:
        return process.wait(timeout=_HANGS_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def kills(world: Path, number: int, seed: int, machines: Machines) -> tuple[list[str], pa.Table]:
    """Kills `number` nights, one kill a night. Prints a table; returns what was wrong, and the rows of a night."""
    night = ScoredRun(str(world), machines.address, world / "kills.log")
    whole, begun = str(world / f"whole-{time.time_ns()}"), time.monotonic()
    if run_to_end(night, whole, night.start(whole)) > 1:
        raise SystemExit(f"a night fails that nobody disturbs: {night.last_line()}")
    length, expected = time.monotonic() - begun, rows_of(whole)
    rng, wrong = random.Random(seed), []
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    summary = storage.read_json(storage.join(whole, "summary.json"))
    shards = len(storage.find_files(whole))
    seconds, lost = summary["seconds"]["stages"]["engine"] / shards, []
    for index in range(number):
        target = _TARGETS[index % len(_TARGETS)]
        output = str(world / f"killed-{time.time_ns()}")
        reader = Reader(output)
        with reader.reading():
            moment, driver = rng.uniform(0, 0.9 * length), night.start(output)
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=moment)
            hit = kill(target, driver, machines, rng)
            ages = sorted(time.time() - os.path.getmtime(file) for file in storage.find_files(output))
            counts[target]["nights"] += 1
            counts[target]["killed"] += hit
            if hit and target == "head":
                _wait(driver)
                machines.stop()
                machines.start()
                night.address = machines.address
            counts[target]["runs"] += run_to_end(night, output, driver)
            if hit and target == "node":
                machines.add_node()
        if hit and target in ("driver", "head") and 0 < len(ages) < shards:
            lost.append(ages[0] / seconds)
        got = rows_of(output)
        counts[target]["looks"] += reader.looks
        counts[target]["rewritten"] += sum(len(objects) - 1 for objects in reader.written.values())
        wrong += [f"{target}: {each}" for each in reader.wrong]
        if not got.equals(expected):
            wrong.append(f"{target}: {output} differs from {whole}")
        print(f"{index + 1}/{number} {target} after {moment:.1f} s, {len(wrong)} wrong", file=sys.stderr, flush=True)
    heads = "killed", "nights", "before their end", "runs needed", "objects written twice", "looks of the reader"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for target, counted in counts.items():
        cells = [counted[name] for name in ("nights", "killed", "runs", "rewritten", "looks")]
        print(f"| {target} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    if lost:
        print(
            f"\nWhen the driver or the head was killed, the newest object was {np.median(lost):.1f} shards' time old "
            f"(median; at most {max(lost):.1f}): that much of the work of two engines was done again.\n"
        )
    return wrong, expected


def duplicates(world: Path, tables: dict[str, str], number: int, machines: Machines, expected: pa.Table) -> list[str]:
    """Starts every night twice at once. Prints a line for each kind of storage; returns what was wrong."""
    wrong = []
    for kind, folder in tables.items():
        told = 0
        for index in range(number):
            output = storage.join(folder, f"twins-{time.time_ns()}")
            nights = [ScoredRun(folder, machines.address, world / f"twin-{kind}-{index}-{n}.log") for n in range(2)]
            jobs = [night.start(output) for night in nights]
            codes = [_wait(job) for job in jobs]
            # Ray may say something more behind it.
            if sorted(codes) != [0, 1] or _TAKEN not in nights[codes.index(1)].log.read_text(errors="replace"):
                wrong.append(f"twins on {kind}: exit codes {codes}, {[night.last_line() for night in nights]}")
                continue
            told += 1
            if not rows_of(output).equals(expected):
                wrong.append(f"twins on {kind}: {output} differs")
        print(
            f"{number} nights started twice at once on {kind}: {told} times one won and the other said so.\n",
            flush=True,
        )
    return wrong


def failing_storage(
    folder: str, address: str, rates: tuple[float, ...], seed: int, machines: Machines, log: Path, expected: pa.Table
) -> list[str]:
    """Runs a night on storage that fails. Prints a table; returns what was wrong."""
    wrong = []
    heads = "requests that fail", "requests", "failed", "runs needed", "seconds", "equal"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for rate in rates:
        proxy, begun = Proxy(address, rate, seed), time.monotonic()
        with proxy.serve() as failing:
            night = ScoredRun(folder.replace(address, failing), machines.address, log)
            output = storage.join(night.tables, f"rate-{time.time_ns()}")
            runs = run_to_end(night, output, night.start(output))
        got = rows_of(output.replace(failing, address))
        if not got.equals(expected):
            wrong.append(f"storage failing at {rate}: {output} differs")
        asked = proxy.counts.pop("requests")
        failed = ", ".join(f"{count} {kind}" for kind, count in sorted(proxy.counts.items())) or "none"
        equal = "yes" if got.equals(expected) else "no"
        print(f"| {rate:.0%} | {asked:,} | {failed} | {runs} | {time.monotonic() - begun:.0f} | {equal} |", flush=True)
    print()
    return wrong


def main(
    folder: Path,
    pairs: int = 2_000,
    kill_nights: int = 54,
    twin_nights: int = 10,
    rates: tuple[float, ...] = (0.0, 0.05, 0.5),
    seed: int = 0,
) -> None:
    """Runs the whole campaign.

    Args:
        folder: where the world and all nights go.
        pairs: of a night.
        kill_nights: nights with a kill each, of the driver, the three kinds of actors, a node and the head in turn.
        twin_nights: nights that are started twice at once, on a local disk and again on S3.
        rates: shares of failing requests to storage.
        seed: of the moments, the victims and the failures.
    """
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # Of its own, so that no other job takes this cluster for the machine's; a socket's path must be short.
    ray_folder = tempfile.TemporaryDirectory()
    os.environ["RAY_TMPDIR"] = ray_folder.name
    world, store = folder / "world", folder / "s3"
    if not world.exists():
        write_world(world, pairs, 20, (6, 6), tokens=20, wanted=10, items=6)
    store.mkdir(parents=True, exist_ok=True)
    machines = Machines()
    try:
        wrong, expected = kills(world, kill_nights, seed, machines)
        with s3_server(store, shift=200) as address:
            remote = uri(address, "faults/world")
            for file in world.glob("*/*.parquet"):
                if file.parent.name in ("requests", "titles", "artworks"):
                    name = storage.join(remote, file.parent.name, file.name)
                    storage.write_object(name, file.read_bytes())
            wrong += duplicates(world, {"a local disk": str(world), "S3": remote}, twin_nights, machines, expected)
            wrong += failing_storage(remote, address, rates, seed, machines, world / "storage.log", expected)
    finally:
        machines.stop()
    print("\n".join(wrong) or "Nothing lost, nothing doubled, no half night seen.")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
