"""What the pages say can be typed, and where they point is something there."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for folder in (".", "docs", "benchmarks/results", "cluster", "adapters")
    for page in (ROOT / folder).glob("*/README.md" if folder == "adapters" else "*.md")
)
_FENCE = re.compile(r"^```(?:sh|bash)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"python (jobs|benchmarks)/(\w+)\.py([^\n]*)")


def commands() -> list[tuple[str, str, str, list[str]]]:
    """The page, the folder, the script and its arguments of each command in a fence; what is optional is given."""
    found = []
    for page in PAGES:
        for block in _FENCE.findall(page.read_text()):
            for folder, script, rest in _COMMAND.findall(block.replace("\\\n", " ")):
                words = shlex.split(rest.replace("$N", "1").translate(str.maketrans("[]", "  ")), comments=True)
                if words and words[-1] == "…" and not words[-2].startswith("--"):
                    words.pop()  # and so on
                found.append((str(page.relative_to(ROOT)), folder, script, words))
    return found


COMMANDS = commands()


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 20
    assert {script for _, folder, script, _ in COMMANDS if folder == "jobs"} == {
        job.stem for job in (ROOT / "jobs").glob("*.py")
    }


@pytest.mark.parametrize(("page", "folder", "script", "words"), COMMANDS, ids=lambda value: str(value)[:60])
def test_a_commands_flags_are_the_jobs(page: str, folder: str, script: str, words: list[str]) -> None:
    path = ROOT / folder / f"{script}.py"
    assert path.exists()
    if folder == "jobs":
        specification = importlib.util.spec_from_file_location(script, path)
        assert specification
        assert specification.loader
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        (config,) = (value for name, value in vars(module).items() if name.endswith("Config"))
        parsed = tyro.cli(config, args=words)  # exits with 2 for a flag that is not there
        assert isinstance(parsed, config)


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*build, ".", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/docs/quickstart.html").exists()
