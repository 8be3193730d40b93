import zipfile
from pathlib import Path

import pytest

from artsel_ray.errors import InputError
from artsel_ray.packages import cache_folder, package_files


@pytest.fixture(autouse=True)
def _wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pip find one wheel in a folder, and the cache another folder."""
    with zipfile.ZipFile(tmp_path / "numbers-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("numbers/data/one.csv", "1")
        wheel.writestr("numbers/data/two.csv", "2")
        wheel.writestr("numbers/other/two.csv", "2")
        wheel.writestr("numbers-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: numbers\nVersion: 1.0\n")
        wheel.writestr("numbers-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("numbers-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))


def test_files_are_fetched_once(tmp_path: Path) -> None:
    names = ["numbers/data/two.csv", "one.csv"]
    files = package_files("numbers==1.0", names)
    assert [file.read_text() for file in files] == ["2", "1"]
    assert all(file.is_relative_to(cache_folder()) for file in files)
    (tmp_path / "numbers-1.0-py3-none-any.whl").unlink()
    assert package_files("numbers==1.0", names) == files


@pytest.mark.parametrize(
    ("requirement", "name", "message"),
    [
        ("absent==1.0", "one.csv", "pip could not download absent==1.0: "),
        ("numbers==1.0", "two.csv", r"numbers==1.0 holds 2 files that end in two\.csv; expected one"),
        ("numbers==1.0", "three.csv", r"numbers==1.0 holds 0 files that end in three\.csv; expected one"),
    ],
)
def test_missing_packages_and_files_are_named(requirement: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        package_files(requirement, [name])
    assert "\n" not in str(caught.value)
    assert not (cache_folder() / "packages" / requirement).exists()
