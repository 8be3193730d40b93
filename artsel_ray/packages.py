"""Files from packages that pip can download, fetched once into a cache on this machine."""

import errno
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from artsel_ray.errors import InputError, one_line

CACHE = "ARTSEL_RAY_CACHE"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
# The same in errors that have the operating system's message alone.
_SAYS_DISK_FULL = re.compile(r"(os error|Errno) (28|122)\b")


def cache_folder() -> Path:
    """Returns the folder for downloads and conversions: `$ARTSEL_RAY_CACHE`, or `~/.cache/artsel-ray`."""
    return Path(os.environ.get(CACHE) or os.path.expanduser("~/.cache/artsel-ray"))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder in the cache, which the `with` block makes.

    Raises:
        InputError: if the cache cannot be written, or its disk fills up in the block.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        lock.acquire()
    except OSError as error:
        raise _unwritable(error) from None
    try:
        yield
    except Exception as error:  # each library that writes has its own
        if is_disk_full(error):
            raise _unwritable(error) from None
        raise
    finally:
        lock.release()


def is_disk_full(error: Exception) -> bool:
    """Returns whether an error of any library says that a disk is full, or that its quota is used up."""
    return getattr(error, "errno", None) in _DISK_FULL or _SAYS_DISK_FULL.search(str(error)) is not None


def _unwritable(error: Exception) -> InputError:
    return InputError(
        f"cannot write to the cache {cache_folder()}: {one_line(error)}; free some space there, or set {CACHE} to a "
        "folder that can be written"
    )


def package_files(requirement: str, sha256: str, names: list[str]) -> list[Path]:
    """Returns files of a wheel, fetched once with pip as configured and without its dependencies.

    Args:
        requirement: a pinned requirement, such as `recbole==1.2.1`.
        sha256: the wheel's SHA-256 in hexadecimal. Name and version do not say which file an index has.
        names: ends of the wanted files' paths inside the wheel.

    Raises:
        InputError: if pip cannot get it, it is another wheel, or not exactly one file has a path with such an end.
    """
    folder = cache_folder() / "packages" / requirement
    if not os.path.isdir(folder):
        with locked(folder):
            if not folder.exists():
                _unpack(requirement, sha256, names, folder)
    return [next(path for path in folder.iterdir() if name.endswith(path.name)) for name in names]


def _unpack(requirement: str, sha256: str, names: list[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # Only wheels: pip runs the setup.py of a source distribution to learn its name.
        options = ["-q", "--no-deps", "--only-binary", ":all:", "--dest", scratch]
        command = [sys.executable, "-m", "pip", "download", *options, requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last_line = (done.stderr.strip() or "no message").splitlines()[-1]
            if _SAYS_DISK_FULL.search(done.stderr):
                raise OSError(errno.ENOSPC, last_line)
            raise InputError(f"pip could not download {requirement}: {last_line}; check the network and pip's index")
        (wheel,) = Path(scratch).glob("*.whl")
        with wheel.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise InputError(
                f"pip downloaded another {requirement} than expected: SHA-256 {found}, not {sha256}; check pip's index"
            )
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                members = [member for member in archive.namelist() if member.endswith(name)]
                if len(members) != 1:
                    raise InputError(f"{requirement} holds {len(members)} files that end in {name}; expected one")
                (unpacked / Path(name).name).write_bytes(archive.read(members[0]))
        unpacked.rename(folder)
