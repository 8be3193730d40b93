"""Which files of a folder are a table's: every Parquet file by any name, and none of a table that another format keeps.

Engines name Parquet files as they like (`000000_0`, `part-1.parq`). A table format (Delta, Iceberg, Hudi) leaves files
in its folder that are no longer, or not yet, part of the table; only its own reader knows which.
"""

import functools
import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow.fs as pafs

from artsel_ray.errors import InputError
from artsel_ray.s3 import open_file

SUFFIX = ".parquet"
INVALID_FOLDER = "rejected"

_FORMATS = {
    "delta": re.compile(r"(^|/)_delta_log(/|$)"),
    "iceberg": re.compile(r"(^|/)metadata/[^/]+\.metadata\.json$"),
    "hudi": re.compile(r"(^|/)\.hoodie(/|$)"),
}
# What jobs and writers put next to a table's files, and images, to which a table may refer.
_COMPANIONS = re.compile(r"(^|/)(config|summary)\.json$|\.(crc|jpe?g|png|webp|gif)$|_\$folder\$$", re.IGNORECASE)
_MAGIC = b"PAR1"
_THREADS, _NAMED = 8, 5


def names_below(fs: pafs.FileSystem, path: str) -> list[str]:
    """Returns the names of all files below a folder, relative to it and sorted; an absent folder has none.

    Raises:
        OSError: if the storage does not answer.
    """
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(entry.path[len(path) :].lstrip("/") for entry in entries if entry.type == pafs.FileType.File)


def is_hidden(name: str) -> bool:
    """Returns whether readers skip a file: below `rejected`, or a part of its name starts with `_` or `.`.

    As in Spark, a folder such as `_day=1` is data.
    """
    *folders, last = name.split("/")
    hidden = (part for part in folders if part.startswith(".") or (part.startswith("_") and "=" not in part))
    return INVALID_FOLDER in folders or any(hidden) or last.startswith(("_", "."))


def table_files(fs: pafs.FileSystem, path: str, uri: str) -> list[str]:
    """Returns the names of the Parquet files below a folder, relative to it and sorted.

    Prints, once for each folder, which files without `.parquet` are read too, and which are left out.

    Args:
        uri: how messages call the folder.

    Raises:
        InputError: for a folder of a table format, or an entry that is neither a file nor a folder.
        OSError: if the storage does not answer.
    """
    names = names_below(fs, path)
    _refuse_formats(fs, path, uri, names)
    if isinstance(fs, pafs.LocalFileSystem):
        _refuse_other_entries(path)
    seen = [name for name in names if not is_hidden(name)]
    others = [name for name in seen if not name.endswith(SUFFIX) and not _COMPANIONS.search(name)]
    with ThreadPoolExecutor(_THREADS) as pool:
        is_parquet = list(pool.map(lambda name: _starts_as_parquet(fs, f"{path}/{name}"), others))
    more = {name for name, parquet in zip(others, is_parquet, strict=True) if parquet}
    if more:
        _report(f"{uri}: reads {_listed(more)} too, which is Parquet by its content", "")
    if left_out := set(others) - more:
        _report(f"{uri}: left out {_listed(left_out)}, which is not Parquet", "warning: ")
    return [name for name in seen if name.endswith(SUFFIX) or name in more]


def _refuse_formats(fs: pafs.FileSystem, path: str, uri: str, names: list[str]) -> None:
    """Looks also above a partition's folder, or a folder `data`: their table's log is there."""
    found = next((form for name in names for form, mark in _FORMATS.items() if mark.search(name)), None)
    root = path
    while not found and ("=" in (last := os.path.basename(root)) or last == "data") and os.path.dirname(root):
        root = os.path.dirname(root)
        logs = fs.get_file_info([f"{root}/{folder}" for folder in ("_delta_log", ".hoodie")])
        above = [f"{os.path.basename(log.path)}/" for log in logs if log.type == pafs.FileType.Directory]
        above += [f"metadata/{name}" for name in names_below(fs, f"{root}/metadata")]
        found = next((form for name in above for form, mark in _FORMATS.items() if mark.search(name)), None)
    if found:
        raise InputError(
            f"{uri} is a table of {found.capitalize()}, whose log says which files count; export a snapshot "
            f'to plain Parquet first: spark.read.format("{found}").load(TABLE).write.parquet(FOLDER)'
        )


def _refuse_other_entries(path: str) -> None:
    for folder, _, names in os.walk(path, followlinks=True):
        for name in names:
            entry = os.path.join(folder, name)
            if not os.path.isfile(entry) and not is_hidden(os.path.relpath(entry, path)):
                what = "a link to nothing" if os.path.islink(entry) else "neither a file nor a folder"
                raise InputError(f"{entry} is {what}; fetch what it stands for, or remove it")


def _starts_as_parquet(fs: pafs.FileSystem, path: str) -> bool:
    with open_file(fs, path) as file:
        return bytes(file.read(len(_MAGIC))) == _MAGIC


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED:,} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more


@functools.cache  # a job lists a folder several times
def _report(line: str, severity: str) -> None:
    print(
        severity + line.replace("\n", "\N{REPLACEMENT CHARACTER}"),
        file=sys.stderr if severity else sys.stdout,
        flush=True,
    )
