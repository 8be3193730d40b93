"""Imports point one way, as DESIGN.md draws it; the heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module may import from its own group and from those before it.
GROUPS = [
    {"errors"},
    {"schema", "config"},
    {"storage", "packages", "cluster", "exclusive", "retries", "runs"},
    {"data", "prompts", "evaluation"},
    {"decoding", "models"},
    {"training", "inference"},
    {"report"},
    {"jobs"},
]
ORDER = {name: level for level, group in enumerate(GROUPS) for name in group}
MODULES = sorted([*ROOT.glob("artsel_ray/**/*.py"), *ROOT.glob("jobs/*.py")])
JOBS = sorted(ROOT.glob("jobs/*.py"))


def place(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "jobs" if parts[0] == "jobs" else parts[1]


def imported(path: Path) -> list[str]:
    """All modules that a file imports, anywhere in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", [path for path in MODULES if place(path) != "__init__"], ids=str)
def test_imports_point_one_way(path: Path) -> None:
    own = [name.split(".")[1] for name in imported(path) if name.startswith("artsel_ray.")]
    assert all(ORDER[name] <= ORDER[place(path)] for name in own)


def test_no_import_cycle() -> None:
    graph = {}
    for path in ROOT.glob("artsel_ray/**/*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[module] = {name for name in imported(path) if name.startswith("artsel_ray.")}
    graph = {
        m: {g for n in names for g in graph if n == g or n.startswith(f"{g}.")} - {m} for m, names in graph.items()
    }
    while leaves := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize(
    ("group", "banned"),
    [
        ("prompts", {"ray", "vllm"}),
        ("decoding", {"ray", "vllm", "torch"}),
        ("evaluation", {"ray", "vllm", "torch", "pyarrow", "transformers"}),
        ("config", {"ray", "torch", "pyarrow"}),
    ],
)
def test_heavy_libraries_stay_where_they_belong(group: str, banned: set[str]) -> None:
    for path in MODULES:
        if place(path) == group:
            assert not banned & {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", JOBS, ids=str)
def test_jobs_only_parse_and_call(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 50


@pytest.mark.parametrize("path", JOBS, ids=str)
def test_help_and_wrong_flags_import_nothing_heavy(path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(path)!r}, sys.argv[1]]\n"
        "try:\n"
        f"    runpy.run_path({str(path)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'ray', 'vllm', 'transformers', 'pyarrow'} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "--output" in shown.stdout
    wrong = subprocess.run([sys.executable, "-c", code, "--no-such-flag"], capture_output=True, text=True)
    assert wrong.returncode == 2
