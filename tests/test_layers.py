"""The shape of the tree: imports point one way, no job imports another, every module is short, named and tested."""

import ast
import fnmatch
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
JOB_FOLDERS = {
    "simulate", "prepare", "caption", "distill", "train", "baseline", "score", "evaluate", "audience", "reproduce",
}  # fmt: skip
# A module may import from its own layer and from those before it. DESIGN.md has the same table.
LAYERS = [
    {"errors"},
    {"console", "locations"},
    {"config", "schema"},
    {"command_line"},
    {"s3", "listing", "storage", "packages", "limited_process"},
    {"runtime"},
    {"data"},
    {"prompts", "evaluation"},
    {"models"},
    {"engines"},
    {"decoding", "network"},
    {"report"},
    JOB_FOLDERS,
    {"jobs"},
]
ORDER = {name: level for level, layer in enumerate(LAYERS) for name in layer}
# Libraries that take seconds or hundreds of MB to import.
HEAVY = {"torch", "ray", "vllm", "transformers", "pyarrow"}
BANNED = {
    "config": HEAVY,
    "command_line": HEAVY,
    "decoding": HEAVY,
    "evaluation": HEAVY | {"pandas", "scipy"},
    "prompts": {"ray", "vllm"},
    "data": {"torch", "vllm", "transformers"},
    "runtime": {"torch", "vllm", "transformers"},
    "models": {"ray", "vllm"},
    "engines": {"ray"},
}
MAX_LINES, MAX_JOB_LINES = 300, 50
CROSS_MODULE_TESTS = {
    "tests/prompts/test_hostile.py",
    "tests/train/test_learning.py",
    "tests/train/test_distributed.py",
}
JOBS = sorted(ROOT.glob("jobs/*.py"))
MODULES = sorted([*ROOT.glob("artsel_ray/**/*.py"), *JOBS])
PACKAGES = sorted(ROOT.glob("artsel_ray/*/__init__.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    """Returns the folder or top-level module that a file belongs to; empty for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "jobs" if parts[0] == "jobs" else parts[1].replace("__init__", "")


def without_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes below one, except what only type checkers execute."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from without_type_checking(other)
            continue
        yield child
        yield from without_type_checking(child)


def imported(path: Path) -> set[str]:
    """Returns all modules, and names out of modules, that a file imports when it runs."""
    names = set()
    for node in without_type_checking(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(path: Path) -> set[str]:
    """Returns the rooms of this package that a file imports from."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("artsel_ray.")}


def test_every_room_has_a_layer() -> None:
    unknown = {room(path) for path in MODULES} - ORDER.keys() - {""}
    assert not unknown, f"{sorted(unknown)}: add them to LAYERS here and to the table in DESIGN.md"


@pytest.mark.parametrize("path", [path for path in MODULES if room(path)], ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    later = sorted(name for name in own_imports(path) if ORDER.get(name, 99) > ORDER[room(path)])
    assert not later, (
        f"{name_of(path)} imports {later}, in a later layer than {room(path)}; move what it needs into an earlier "
        "one, pass it as an argument, or import it under TYPE_CHECKING if it is only a type"
    )


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in JOB_FOLDERS - {"reproduce"}], ids=name_of)
def test_no_job_imports_another(path: Path) -> None:
    others = sorted(own_imports(path) & JOB_FOLDERS - {room(path)})
    assert not others, f"{name_of(path)} imports the jobs {others}; move what they share into a room before the jobs"


def test_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for path in ROOT.glob("artsel_ray/**/*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[module] = {name for name in imported(path) if name.startswith("artsel_ray.")}
    graph = {
        module: {other for name in names for other in graph if name == other or name.startswith(f"{other}.")} - {module}
        for module, names in graph.items()
    }
    while leaves := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, f"these import each other: {sorted(graph)}; move what they share into a module of its own"


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "settings.py" or room(path) in BANNED],
                         ids=name_of)  # fmt: skip
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    banned = HEAVY if path.name == "settings.py" else BANNED[room(path)]
    found = sorted(banned & {name.split(".")[0] for name in imported(path)})
    assert not found, f"{name_of(path)} imports {found}, which {room(path)} must do without; see BANNED in this test"


def test_settings_and_the_table_of_decoders_import_nothing_heavy() -> None:
    modules = ["artsel_ray.decoding.decoders", "artsel_ray.config"]
    modules += [f"artsel_ray.{path.parent.name}.settings" for path in ROOT.glob("artsel_ray/*/settings.py")]
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        f"    heavy = {HEAVY!r} & set(sys.modules)\n    assert not heavy, f'{{name}} imports {{heavy}}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_help_and_wrong_flags_import_nothing_heavy(path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(path)!r}, sys.argv[1]]\n"
        "try:\n"
        f"    runpy.run_path({str(path)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        f"    heavy = {HEAVY!r} & set(sys.modules)\n"
        "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    assert "--output" in shown.stdout
    wrong = subprocess.run([sys.executable, "-c", code, "--no-such-flag"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2, wrong.stderr


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_every_folder_names_its_modules(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    modules = sorted(other.stem for other in path.parent.glob("*.py") if other.name != "__init__.py")
    missing = [module for module in modules if not re.search(rf"`{module}(\.py)?`", docstring)]
    assert not missing, f"{name_of(path)}: add to its docstring a line `name`: what it is for, for {missing}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_short(path: Path) -> None:
    lines, most = len(path.read_text().splitlines()), MAX_JOB_LINES if room(path) == "jobs" else MAX_LINES
    remedy = "a job only parses and calls" if room(path) == "jobs" else "split it by what its parts are for"
    assert lines <= most, f"{name_of(path)} has {lines} lines, at most {most}; {remedy}"


def entries() -> dict[Path, set[str]]:
    """Returns the entry functions that jobs/*.py name, by module."""
    found: dict[Path, set[str]] = {}
    for path in JOBS:
        (entry,) = re.findall(r'run\(\w+, "([\w.]+):(\w+)"\)', path.read_text())
        found.setdefault(ROOT / (entry[0].replace(".", "/") + ".py"), set()).add(entry[1])
    return found


ENTRIES = entries()
CONFIGS = sorted({name for path in JOBS for name in re.findall(r"run\((\w+Config),", path.read_text())})


def takes_config(function: ast.FunctionDef) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    hints = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation]
    # A job's config: TrainConfig, but neither LoraConfig of a library nor a type variable.
    return any(re.search(rf"\b({'|'.join(CONFIGS)})\b", hint) for hint in hints)


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "jobs"], ids=name_of)
def test_only_a_jobs_entry_takes_its_config(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    allowed = ENTRIES.get(path, set())
    # Next to the entry, the functions that it calls may help to resolve the config.
    for function in functions:
        if function.name in ENTRIES.get(path, set()):
            allowed = allowed | {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    wrong = [each for each in functions if takes_config(each) and each.name not in allowed]
    listed = ", ".join(f"{each.name} (line {each.lineno})" for each in wrong)
    assert not wrong, (
        f"{name_of(path)}: {listed} takes a job's config; only the entry function and what it calls in its own module "
        "may: resolve the config there, and pass values or a record"
    )


def test_every_entry_exists() -> None:
    for path, names in ENTRIES.items():
        functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert names <= functions, f"{name_of(path)} has no function {sorted(names - functions)}, which jobs/ names"


def untested() -> list[str]:
    """Returns the patterns of modules that DESIGN.md lists as tested elsewhere, each with a reason."""
    _, _, section = (ROOT / "DESIGN.md").read_text().partition("### Modules without a test module of their own\n")
    return re.findall(r"^- `([\w*/.]+)`: \S", section.partition("\n#")[0], re.MULTILINE)


UNTESTED = untested()


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "jobs" and path.stem != "__init__"],
                         ids=name_of)  # fmt: skip
def test_every_module_has_a_test_module(path: Path) -> None:
    own = path.relative_to(ROOT / "artsel_ray")
    expected = ROOT / "tests" / own.parent / f"test_{own.name}"
    listed = any(fnmatch.fnmatch(str(own), pattern) for pattern in UNTESTED)
    assert expected.exists() or listed, (
        f"{name_of(path)} has no {name_of(expected)}; write it, or list `{own}` with a reason in DESIGN.md, "
        '"Modules without a test module of their own"'
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/*/test_*.py")), ids=name_of)
def test_every_test_module_tests_a_module(path: Path) -> None:
    folder = ROOT / "artsel_ray" / path.parent.name
    if not folder.exists():
        pytest.skip("tests of no package folder")
    module = folder / path.name.removeprefix("test_")
    assert module.exists() or name_of(path) in CROSS_MODULE_TESTS, (
        f"{name_of(path)} tests no {name_of(module)}; name it after the module that it tests, or add it to "
        "CROSS_MODULE_TESTS in this test"
    )


def test_package_can_be_found() -> None:
    spec = importlib.util.find_spec("artsel_ray")
    assert spec is not None
    assert Path(str(spec.origin)).parent == ROOT / "artsel_ray", "the tests run against another copy: set PYTHONPATH"
