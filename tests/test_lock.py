"""What is installed is what was locked."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["cpu"] + project["optional-dependencies"]["dev"]
    names = {normal(re.split(r"[\[<>=~! ]", text)[0]) for text in wanted}
    lines = [line for line in (ROOT / "requirements/cpu.lock").read_text().splitlines() if line and line[0] != "#"]
    pinned = [re.fullmatch(r"([A-Za-z0-9._-]+)==[\w.+!]+", line) for line in lines]
    assert [line for line, found in zip(lines, pinned, strict=True) if not found] == []
    assert names - {normal(found[1]) for found in pinned if found} == set()
    # The Makefile names the CPU build of torch once more, because its index is another one.
    torch = re.findall(r"^TORCH := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line for line in lines if line.startswith("torch==")] == torch


def test_supported_pythons_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "not (3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text()
    assert "Python 3.11 (tested), 3.12 or 3.13" in (ROOT / "README.md").read_text()
