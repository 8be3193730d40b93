"""Peak memory and work files of one row that holds far too much, or just what it may: the reader and the shuffle.

python benchmarks/one_row.py
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import schema
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.score.assignment import Assignment, count_titles
from artsel_ray.score.requests import shuffle_requests

ITEM = {"timestamp": None, "title_name": "A title", "genres": ["Drama"], "watch_seconds": 1.0}


def _requests(titles: int, items: int, **changes: Any) -> pa.Table:
    row = {"user_id": "u", "history": [ITEM | changes] * items, "title_ids": [f"t{n}" for n in range(titles)]}
    return pa.Table.from_pylist([row], schema.REQUESTS)


def _dictionary() -> pa.Table:
    rows = 65_536
    name = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * (1 << 20)]))
    return pa.table({"title_id": pa.array(map(str, range(rows))), "name": name, "genres": pa.array([["g"]] * rows)})


def _caption() -> pa.Table:
    return pa.table({"artwork_id": ["a"], "title_id": ["t"], "caption": ["word " * (16 * 2**20 // 5)]})


CASES: dict[str, tuple[str, Callable[[], pa.Table]]] = {
    "a million title ids": ("requests", lambda: _requests(1_000_000, 50)),
    "20,000 title ids": ("requests", lambda: _requests(20_000, 50)),
    "10,000 title ids (the limit)": ("requests", lambda: _requests(10_000, 50)),
    "10,000 title ids, names of 2,048 bytes": ("requests", lambda: _requests(10_000, 50, title_name="x" * 2048)),
    "one value of 1 MiB, 65,536 times": ("titles", _dictionary),
    "a caption of 16 MiB": ("artworks", _caption),
    "200,000 history items": ("requests", lambda: _requests(1, 200_000)),
    "10,000 history items (the limit)": ("requests", lambda: _requests(400, 10_000)),
    "50,000 genres": ("requests", lambda: _requests(1, 1, genres=[f"g{n}" for n in range(50_000)])),
}


def _run(table: str, file: str, folder: str, sender: Any) -> None:
    began, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    if table == "requests":
        counts = count_titles(file)
        assignment = Assignment(dict.fromkeys(counts, (0, 1)), 1, 50)
        moved = shuffle_requests([file], range(1), assignment, f"{folder}/work", f"{folder}/rejected")
        outcome = f"{moved.pairs:,} pairs, {moved.rejected_rows} invalid"
    else:
        batch = CheckedReader([file], table).all()
        outcome = f"{batch.valid.num_rows:,} valid, {batch.invalid.num_rows:,} invalid"
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work = sum(path.stat().st_size for path in Path(folder).rglob("*.arrow"))
    sender.send(f"{began / 2**10:,.0f} | {peak / 2**10:,.0f} | {seconds:.1f} | {work / 2**20:.1f} | {outcome}")


def main() -> None:
    """Prints a table: each case in a process of its own."""
    context = multiprocessing.get_context("spawn")
    print("| case | file, KB | MiB before | peak MiB | s | work files, MiB | outcome |\n|---|---|---|---|---|---|---|")
    for name, (table, make) in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/a.parquet"
            pq.write_table(make(), file, compression="zstd")
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(table, file, folder, sender))
            process.start()
            print(f"| {name} | {Path(file).stat().st_size / 1e3:,.1f} | {receiver.recv()} |", flush=True)
            process.join()


if __name__ == "__main__":
    main()
