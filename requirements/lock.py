"""Adds to a lock file the hashes of the wheels that it installs; CONTRIBUTING.md says when to run it.

Usage: `python requirements/lock.py requirements/cpu.lock [options of pip]`. For each supported Python, pip finds the
wheel of each pinned package for Linux on x86-64. A comment names the wheels' tags, for `tests/test_lock.py`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")
# glibc 2.31 or newer; pip does not derive the older platforms from the newest one.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(31, 4, -1)] + [
    f"manylinux{year}_x86_64" for year in (2014, 2010, 1)
]


def pins(lock: str) -> list[str]:
    """Returns the pinned packages of a lock file, such as `numpy==2.3.5`, in its order."""
    return re.findall(r"^[\w.-]+==[\w.+!]+", lock, re.MULTILINE)


def wheels(packages: list[str], python: str, options: list[str]) -> list[tuple[str, str]]:
    """Returns the tags and the SHA-256 of the wheel that pip takes for each package."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", python, "--report", "-", "--target", "unused"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    report = json.loads(subprocess.check_output([*command, *options, *packages]))
    found = {}
    for each in report["install"]:
        # The end of a wheel's name is its tags; the platform is the same for all.
        *_, interpreter, abi, _ = each["download_info"]["url"].rsplit("/", 1)[1].split("-")
        name = re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower()
        found[name] = (f"{interpreter}-{abi}", each["download_info"]["archive_info"]["hashes"]["sha256"])
    return [found[re.sub(r"[-_.]+", "-", package.split("==")[0]).lower()] for package in packages]


def main(path: Path, options: list[str]) -> None:
    """Writes a lock file again, with hashes."""
    lock = path.read_text()
    header = re.match(r"(#.*\n)*", lock)
    packages = pins(lock)
    by_python = [wheels(packages, python, options) for python in PYTHONS]
    entries = [header[0] if header else ""]
    for package, *found in zip(packages, *by_python, strict=True):
        distinct = dict.fromkeys(found)
        hashes = " \\\n".join(f"    --hash=sha256:{sha256}" for _, sha256 in distinct)
        entries.append(f"{package} \\\n{hashes}\n    # {' '.join(tags for tags, _ in distinct)}\n")
    path.write_text("".join(entries))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
