"""Which checkpoints are complete: each worker writes a list of its files and their sizes, last."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from artsel_ray import storage
from artsel_ray.s3 import open_file

_LIST = "files-"


def seal(folder: Path, rank: int, workers: int) -> None:
    """Lists what this worker has written into its folder of a checkpoint; Ray merges the workers' folders."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(_LIST)]
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    storage.write_json(str(folder / f"{_LIST}{rank}.json"), {"workers": workers, "sizes": sizes})


def is_complete(fs: pafs.FileSystem, path: str) -> bool:
    """Tells whether all workers' lists are there, and every listed file with its listed size."""
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    found = {entry.path[len(path) :].lstrip("/"): entry.size for entry in entries if entry.is_file}
    try:
        lists = [_read(fs, f"{path}/{name}") for name in found if name.startswith(_LIST)]
        listed = [entry for each in lists for entry in each["sizes"].items()]
        return bool(lists) and len(lists) == lists[0]["workers"] and all(found.get(file) == n for file, n in listed)
    except (ValueError, KeyError, TypeError):  # a list is itself cut short
        return False


def newest_complete(fs: pafs.FileSystem, newest_first: Iterable[str], report: Callable[[str], None]) -> str | None:
    """Returns the first path whose checkpoint is complete, or None; reports in one line what was skipped."""
    incomplete = 0
    for path in newest_first:
        if is_complete(fs, path):
            if incomplete:
                report(f"{incomplete} incomplete checkpoint(s), skipped for an earlier one")
            return path
        incomplete += 1
    if incomplete:
        report(f"{incomplete} incomplete checkpoint(s) and no complete one: training starts from the beginning")
    return None


def _read(fs: pafs.FileSystem, path: str) -> dict[str, Any]:
    with open_file(fs, path) as file:
        return json.loads(file.read())
