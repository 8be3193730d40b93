"""Folders that are made once on this machine, and then shared by all processes."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from artsel_ray import packages


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """Returns the cache's folder of a key, made by `make(folder)` if it is not there yet.

    A process that dies leaves no partial folder, and one process waits for another that makes the same one.
    """
    folder = packages.cache_folder() / "models" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would mix with the job's own lines
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        make(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
