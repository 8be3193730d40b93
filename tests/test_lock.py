"""What is installed is what was locked."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, parse_tag
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = [ROOT / "requirements" / name for name in ("torch-cpu.lock", "cpu.lock")]
PYTHONS = ["3.11", "3.12", "3.13"]
# As requirements/lock.py writes them: a pin, the hashes of its wheels, and in the same order their tags in a comment.
PACKAGE = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>[\w.+!]+)"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
    r"    #(?P<tags>(?: [\w.]+-[\w.]+)+)\n"
)
PACKAGES = {canonicalize_name(found["name"]): found for lock in LOCKS for found in PACKAGE.finditer(lock.read_text())}
# CONTRIBUTING.md says why the locks are without these.
LEFT_OUT = {"torchaudio", "torchcodec", "torchvision", "triton"}


def test_every_line_of_the_locks_is_a_pin_with_hashes() -> None:
    for lock in LOCKS:
        rest = PACKAGE.sub("", lock.read_text()).splitlines()
        assert [line for line in rest if not line.startswith("#")] == []
    assert len(PACKAGES) == sum(lock.read_text().count("==") for lock in LOCKS) > 200
    assert all(found["hashes"].count("--hash") == len(found["tags"].split()) for found in PACKAGES.values())


def test_every_dependency_is_locked_at_a_version_that_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [Requirement(text) for text in project["dependencies"] + optional["cpu"] + optional["dev"]]
    assert [str(each) for each in wanted if not is_met(each)] == []


@pytest.mark.parametrize("python", PYTHONS)
def test_dependencies_of_locked_packages_are_locked_at_versions_that_they_allow(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    unmet = set()
    for package in metadata.distributions():
        if canonicalize_name(package.name) in PACKAGES:
            wanted = [Requirement(text) for text in package.requires or []]
            wanted = [each for each in wanted if each.marker is None or each.marker.evaluate(environment)]
            unmet |= {f"{package.name} needs {each.name}{each.specifier}" for each in wanted if not is_met(each)}
    assert {line for line in unmet if re.split(r"[<>=!~ ]", line.split(" needs ")[1])[0] not in LEFT_OUT} == set()


def is_met(requirement: Requirement) -> bool:
    found = PACKAGES.get(canonicalize_name(requirement.name))
    return found is not None and requirement.specifier.contains(found["version"], prereleases=True)


def test_every_command_that_installs_a_lock_requires_its_hashes() -> None:
    makefile, dockerfile = ((ROOT / name).read_text() for name in ("Makefile", "cluster/Dockerfile"))
    hashes = "--require-hashes --only-binary :all:"
    assert f"LOCKED := $(INSTALL) {hashes}" in makefile
    for text in (makefile.replace("$(LOCKED)", hashes), dockerfile):
        lines = [re.sub(r"\s+", " ", line) for line in text.replace("\\\n", " ").splitlines() if ".lock" in line]
        installing = [line for line in lines if re.search(r"-r \S+\.lock", line)]
        assert len(installing) > 0
        assert all(line.count(hashes) == len(re.findall(r"-r \S+\.lock", line)) for line in installing)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_locked_package_has_a_wheel_for_each_supported_python(python: str) -> None:
    """The tags are those of the wheels that pip took when requirements/lock.py recorded the hashes."""
    version = [int(part) for part in python.split(".")]
    tags = {
        *cpython_tags(version, platforms=["any"]),
        *compatible_tags(version, f"cp{version[0]}{version[1]}", ["any"]),
    }
    missing = [name for name, found in PACKAGES.items() if not any(fits(tags, each) for each in found["tags"].split())]
    assert missing == []


def fits(supported: set[Tag], tags: str) -> bool:
    return any(tag in supported for tag in parse_tag(f"{tags}-any"))


def test_hashes_of_a_lock_are_added_for_each_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tag in ("cp311-cp311", "cp312-cp312", "cp313-cp313"):
        with zipfile.ZipFile(tmp_path / f"numbers-1.0-{tag}-manylinux_2_28_x86_64.whl", "w") as wheel:
            wheel.writestr("numbers-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: numbers\nVersion: 1.0\n")
            wheel.writestr("numbers-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}-manylinux_2_28_x86_64\n")
            wheel.writestr("numbers-1.0.dist-info/RECORD", "")
    lock = tmp_path / "some.lock"
    lock.write_text("# Numbers\nnumbers==1.0\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    subprocess.run([sys.executable, ROOT / "requirements/lock.py", lock, "--no-index"], check=True)
    assert lock.read_text().startswith("# Numbers\nnumbers==1.0 \\\n    --hash=sha256:")
    (found,) = PACKAGE.finditer(lock.read_text())
    assert found["tags"] == " cp311-cp311 cp312-cp312 cp313-cp313"
    assert len(set(re.findall(r"sha256:(\w+)", found["hashes"]))) == 3


def test_supported_pythons_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert 'PYTHONS = ("3.11", "3.12", "3.13")' in (ROOT / "requirements/lock.py").read_text()
    assert "not (3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text()
    assert "for version in 3.12 3.13" in (ROOT / ".ci/run").read_text()  # `make test` runs on another
    assert "Python 3.11, 3.12 or 3.13" in (ROOT / "README.md").read_text()
