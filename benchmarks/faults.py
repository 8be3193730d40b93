"""A fault-injection suite: kills runs at random moments, starts them twice, fails their storage, and checks the result.

A run of made-up requests uses a Ray cluster of two nodes on this machine, with a slow fake engine. The driver, an
actor, a node or the head is killed with SIGKILL; then the same command is repeated until it succeeds. Meanwhile a
reader reads the output as a service would. In the end every pair must be there once, as in an undisturbed run, and the
reader must have seen either no run or the complete one.

`python benchmarks/faults.py --folder /tmp/world` prints Markdown tables and fails if anything was lost or duplicated.
`benchmarks/results/faults.md` keeps the results.
"""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro
from disturbed_runs import Machines, Reader, ScoredRun, kill, rows_of, run_to_end, wait
from scoring_world import write_world

from artsel_ray import storage

_ROOT = Path(__file__).parent.parent
sys.path.append(str(_ROOT))  # a script has only its own folder on the path
from tests.support.s3_server import KEY, SECRET, Proxy, s3_server, uri  # noqa: E402

_TARGETS = ("driver", "EngineActor", "node", "head", "PrepareActor", "WriteActor")
_TAKEN_OVER = "another job has taken over"


@dataclass(frozen=True)
class Undisturbed:
    """A run without faults, and what the others are compared with."""

    output: str
    rows: pa.Table
    run_seconds: float
    shards: int
    shard_seconds: float
    """Time that an engine needs for a shard."""


def run_undisturbed(run: ScoredRun, output: str) -> Undisturbed:
    """Runs once; fails if that needs more than one attempt."""
    started = time.monotonic()
    if run_to_end(run, output, run.start(output)) > 1:
        raise SystemExit(f"a run without faults fails: {run.last_line()}")
    seconds, shards = time.monotonic() - started, len(storage.find_files(output))
    summary = storage.read_json(storage.join(output, "summary.json"))
    return Undisturbed(output, rows_of(output), seconds, shards, summary["seconds"]["stages"]["engine"] / shards)


@dataclass
class Kills:
    """What became of the runs that were killed."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By target."""
    wrong: list[str] = field(default_factory=list)
    lost_shards: list[float] = field(default_factory=list)
    """Age of the newest object when the driver or head was killed, in shards' time."""


def kill_one(run: ScoredRun, target: str, machines: Machines, rng: random.Random, expected: Undisturbed) -> Kills:
    """Starts a run, kills the target at a random moment, and repeats the command until it succeeds."""
    found, output = Kills(), storage.join(run.tables, f"killed-{time.time_ns()}")
    counts, reader = found.counts[target], Reader(output)
    with reader.reading():
        moment, driver = rng.uniform(0, 0.9 * expected.run_seconds), run.start(output)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=moment)
        hit = kill(target, driver, machines, rng)
        ages = sorted(time.time() - os.path.getmtime(file) for file in storage.find_files(output))
        if hit and target == "head":
            wait(driver)
            machines.stop()
            machines.start()
            run.address = machines.address
        attempts = run_to_end(run, output, driver)
        if hit and target == "node":
            machines.add_node()
    if hit and target in ("driver", "head") and 0 < len(ages) < expected.shards:
        found.lost_shards.append(ages[0] / expected.shard_seconds)
    rewritten = sum(len(objects) - 1 for objects in reader.written.values())
    counts.update({"runs": 1, "killed": int(hit), "attempts": attempts, "rewritten": rewritten, "reads": reader.reads})
    found.wrong += [f"{target}: {each}" for each in reader.wrong]
    if not rows_of(output).equals(expected.rows):
        found.wrong.append(f"{target}: {output} differs from {expected.output}")
    return found


def kills(world: Path, number: int, seed: int, machines: Machines) -> tuple[list[str], pa.Table]:
    """Kills `number` runs, once each. Prints a table; returns what was wrong, and an undisturbed run's rows."""
    run = ScoredRun(str(world), machines.address, world / "kills.log")
    expected = run_undisturbed(run, str(world / f"undisturbed-{time.time_ns()}"))
    rng, total = random.Random(seed), Kills()
    for index in range(number):
        target = _TARGETS[index % len(_TARGETS)]
        found = kill_one(run, target, machines, rng, expected)
        total.counts[target].update(found.counts[target])
        total.wrong += found.wrong
        total.lost_shards += found.lost_shards
        print(f"{index + 1}/{number} {target}, {len(total.wrong)} wrong", file=sys.stderr, flush=True)
    heads = "killed", "runs", "before they finished", "attempts", "objects written twice", "reads of the reader"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for target, counted in total.counts.items():
        cells = [counted[name] for name in ("runs", "killed", "attempts", "rewritten", "reads")]
        print(f"| {target} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    if total.lost_shards:
        print(
            f"\nWhen the driver or the head was killed, the newest object was {np.median(total.lost_shards):.1f} "
            f"shards' time old (median; at most {max(total.lost_shards):.1f}): that much of the work of two engines "
            "was repeated.\n"
        )
    return total.wrong, expected.rows


def duplicates(world: Path, tables: dict[str, str], number: int, machines: Machines, expected: pa.Table) -> list[str]:
    """Starts every run twice at once. Prints a line for each kind of storage; returns what was wrong."""
    wrong = []
    for kind, folder in tables.items():
        reported = 0
        for index in range(number):
            output = storage.join(folder, f"duplicates-{time.time_ns()}")
            logs = [world / f"duplicate-{kind}-{index}-{n}.log" for n in range(2)]
            runs = [ScoredRun(folder, machines.address, log) for log in logs]
            codes = [wait(job) for job in [run.start(output) for run in runs]]
            # The message may not be the last line: Ray may log more after it.
            if sorted(codes) != [0, 1] or _TAKEN_OVER not in logs[codes.index(1)].read_text(errors="replace"):
                wrong.append(f"duplicates on {kind}: exit codes {codes}, {[run.last_line() for run in runs]}")
                continue
            reported += 1
            if not rows_of(output).equals(expected):
                wrong.append(f"duplicates on {kind}: {output} differs")
        print(
            f"{number} runs started twice at once on {kind}: {reported} times one won and the other reported it.\n",
            flush=True,
        )
    return wrong


def failing_storage(
    remote: str, address: str, rates: tuple[float, ...], seed: int, run: ScoredRun, expected: pa.Table
) -> list[str]:
    """Runs on storage that fails. Prints a table; returns what was wrong.

    Args:
        remote: tables on the S3 server.
        address: of the server.
        rates: shares of failing requests.
        seed: of the failures.
        run: whose tables are replaced by the failing server's.
        expected: rows of an undisturbed run.
    """
    wrong = []
    heads = "requests that fail", "requests", "failed", "attempts", "seconds", "equal"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for rate in rates:
        proxy, started = Proxy(address, rate, seed), time.monotonic()
        with proxy.serve() as failing:
            run.tables = remote.replace(address, failing)
            output = storage.join(run.tables, f"rate-{time.time_ns()}")
            attempts = run_to_end(run, output, run.start(output))
        is_equal = rows_of(output.replace(failing, address)).equals(expected)
        if not is_equal:
            wrong.append(f"storage failing at {rate}: {output} differs")
        requests = proxy.counts.pop("requests")
        failed = ", ".join(f"{count} {kind}" for kind, count in sorted(proxy.counts.items())) or "none"
        cells = [f"{rate:.0%}", f"{requests:,}", failed, f"{attempts}", f"{time.monotonic() - started:.0f}"]
        print("| " + " | ".join([*cells, "yes" if is_equal else "no"]) + " |", flush=True)
    print()
    return wrong


def main(
    folder: Path,
    pairs: int = 2_000,
    killed_runs: int = 54,
    duplicate_runs: int = 10,
    duplicates_on: tuple[str, ...] = ("a local disk", "S3"),
    rates: tuple[float, ...] = (0.0, 0.05, 0.5),
    seed: int = 0,
) -> None:
    """Runs the suite.

    Args:
        folder: where the world and all runs go.
        pairs: of a run.
        killed_runs: runs with one kill each, of the driver, the three kinds of actors, a node and the head in turn.
        duplicate_runs: runs that are started twice at once, on each of the next argument's storages.
        duplicates_on: kinds of storage.
        rates: shares of failing requests to storage.
        seed: of the moments, the victims and the failures.
    """
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # A separate folder, so that no other job takes this cluster for the machine's; a socket's path must be short.
    ray_folder = tempfile.TemporaryDirectory()
    os.environ["RAY_TMPDIR"] = ray_folder.name
    world, store = folder / "world", folder / "s3"
    if not world.exists():
        write_world(world, pairs, 20, (6, 6), tokens=20, wanted=10, items=6)
    store.mkdir(parents=True, exist_ok=True)
    machines = Machines()
    try:
        wrong, expected = kills(world, killed_runs, seed, machines)
        with s3_server(store, shift=200) as address:
            remote = _upload(world, uri(address, "faults/world"))
            tables = {kind: {"a local disk": str(world), "S3": remote}[kind] for kind in duplicates_on}
            wrong += duplicates(world, tables, duplicate_runs, machines, expected)
            run = ScoredRun(remote, machines.address, world / "storage.log")
            wrong += failing_storage(remote, address, rates, seed, run, expected)
    finally:
        machines.stop()
    print("\n".join(wrong) or "Nothing lost, nothing duplicated, no incomplete run seen.")
    if wrong:
        raise SystemExit(1)


def _upload(world: Path, remote: str) -> str:
    """Copies a world's tables to another storage; returns its URI."""
    for file in world.glob("*/*.parquet"):
        if file.parent.name in ("requests", "titles", "artworks"):
            storage.write_object(storage.join(remote, file.parent.name, file.name), file.read_bytes())
    return remote


if __name__ == "__main__":
    tyro.cli(main)
