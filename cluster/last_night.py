"""Prints the newest night before a date that is whole, or nothing: `python cluster/latest_run.py PREDICTIONS DATE`.

A night that failed has no manifest. It is passed over, so that it does not fail all nights after it.
"""

import sys

import pyarrow.fs as pafs

from artsel_ray import storage


def latest_run(predictions: str, date: str) -> str | None:
    """Returns the URI of the newest `night=…` before `date` with a manifest."""
    fs, path = storage.filesystem(predictions)
    names = [entry.base_name for entry in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))]
    earlier = sorted(name for name in names if name.startswith("night=") and name < f"night={date}")
    uris = (storage.join(predictions, name) for name in reversed(earlier))
    return next((uri for uri in uris if storage.read_manifest(uri) is not None), None)


if __name__ == "__main__":
    print(latest_run(sys.argv[1], sys.argv[2]) or "")
