"""Prints the URI of the newest finished run before a date, or nothing.

Usage: `python cluster/latest_run.py PREDICTIONS DATE`. A failed run has no manifest and is skipped, so that one failure
does not fail every later run.
"""

import sys

import pyarrow.fs as pafs

from artsel_ray import storage


def latest_run(predictions: str, date: str) -> str | None:
    """Returns the URI of the newest `date=…` folder before `date` that has a manifest, or None.

    Args:
        predictions: the folder of the dated runs: a path or URI.
        date: the date of the current run, such as 2026-11-22.
    """
    fs, path = storage.filesystem(predictions)
    names = [entry.base_name for entry in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))]
    earlier = sorted(name for name in names if name.startswith("date=") and name < f"date={date}")
    uris = (storage.join(predictions, name) for name in reversed(earlier))
    return next((uri for uri in uris if storage.read_manifest(uri) is not None), None)


if __name__ == "__main__":
    print(latest_run(sys.argv[1], sys.argv[2]) or "")
