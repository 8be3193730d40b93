"""Which checkpoints are whole: each worker lists its files and their sizes beside them, last."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow.fs as pafs

from artsel_ray import storage
from artsel_ray.s3 import open_file

_LIST = "files-"


def seal(folder: Path, rank: int, workers: int) -> None:
    """Says what this worker has written into its folder of a checkpoint; Ray puts the workers' folders together."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(_LIST)]
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    storage.write_json(str(folder / f"{_LIST}{rank}.json"), {"workers": workers, "sizes": sizes})


def is_complete(fs: pafs.FileSystem, path: str) -> bool:
    """Tells whether all workers' lists are there, and every file that they name, as long as they say."""
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    found = {entry.path[len(path) :].lstrip("/"): entry.size for entry in entries if entry.is_file}
    try:
        lists = [_read(fs, f"{path}/{name}") for name in found if name.startswith(_LIST)]
        named = [entry for each in lists for entry in each["sizes"].items()]
        return bool(lists) and len(lists) == lists[0]["workers"] and all(found.get(file) == n for file, n in named)
    except (ValueError, KeyError, TypeError):  # a list is itself cut short
        return False


def newest_complete(fs: pafs.FileSystem, newest_first: Iterable[str], say: Callable[[str], None]) -> str | None:
    """Returns the first path whose checkpoint is whole; says in a line which are not and what is done instead."""
    broken = 0
    for path in newest_first:
        if is_complete(fs, path):
            if broken:
                say(f"{broken} checkpoint(s) not whole, passed over for an earlier one")
            return path
        broken += 1
    if broken:
        say(f"{broken} checkpoint(s), none of them whole: training starts anew")
    return None


def _read(fs: pafs.FileSystem, path: str) -> dict:
    with open_file(fs, path) as file:
        return json.loads(file.read())
