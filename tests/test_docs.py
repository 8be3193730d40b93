"""The commands in the documentation parse, and its links and paths exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from artsel_ray.command_line import parse
from tests.support.job_configs import ROOT, config_type

PAGES = sorted(
    page
    for folder in (".", "docs", "benchmarks/results", "cluster", "adapters")
    for page in (ROOT / folder).glob("*/README.md" if folder == "adapters" else "*.md")
)
_FENCE = re.compile(r"^```(?:sh|bash)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"python (jobs|benchmarks)/(\w+)\.py([^\n]*)")
_PATH = re.compile(r"`((?:artsel_ray|benchmarks|cluster|docs|jobs|tests)/[\w./-]*\w)`")


def commands() -> list[tuple[str, str, str, list[str]]]:
    """Returns page, folder, script and arguments of each command in a fence; optional arguments are given."""
    found = []
    for page in PAGES:
        for block in _FENCE.findall(page.read_text()):
            for folder, script, rest in _COMMAND.findall(block.replace("\\\n", " ")):
                words = shlex.split(rest.replace("$N", "1").translate(str.maketrans("[]", "  ")), comments=True)
                if words and words[-1] == "…" and not words[-2].startswith("--"):
                    words.pop()  # "and so on"
                found.append((str(page.relative_to(ROOT)), folder, script, words))
    return found


COMMANDS = commands()


def test_every_job_has_a_command_in_the_documentation() -> None:
    assert len(COMMANDS) > 20
    assert {script for _, folder, script, _ in COMMANDS if folder == "jobs"} == {
        job.stem for job in (ROOT / "jobs").glob("*.py")
    }


@pytest.mark.parametrize(("page", "folder", "script", "words"), COMMANDS, ids=lambda value: str(value)[:60])
def test_command_parses(
    page: str, folder: str, script: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = (ROOT / folder / f"{script}.py").read_text()
    if folder == "benchmarks":  # these have no config class: a flag is an argument of a function
        flags = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
        assert [flag for flag in flags if flag not in source] == []
    else:
        job_config = config_type(script)
        assert isinstance(parse(job_config, words), job_config)  # an unknown flag exits with 2
        assert "warning" not in capsys.readouterr().err  # no renamed flag


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    named = set(_PATH.findall(page.read_text()))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_checks_of_the_verification_page_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs/verification.md").read_text())
    assert len(named) > 30
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_site_builds_without_broken_links(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*build, ".", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/docs/quickstart.html").exists()
