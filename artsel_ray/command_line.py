"""A job's command line: tyro parses it, pydantic checks every value, and an error is one line."""

import dataclasses
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from artsel_ray.config import FlagValueError, ModelName, Uri, flag
from artsel_ray.console import end_on_signals, require_utf8, unbreakable_output, visible, visible_output
from artsel_ray.errors import InputError
from artsel_ray.locations import check_output, check_scheme

T = TypeVar("T")

# Names in the previous version; this one accepts them with a warning.
_RENAMED_FLAGS = {
    "--plan": "--estimate-cost",
    "--no-plan": "--no-estimate-cost",
    "--least-users": "--min-users",
    "--most": "--max-proposals",
    "--kept-pixels": "--resize-to-pixels",
    "--pictures": "--images",
    "--no-pictures": "--no-images",
}
# Locations that may be below an output, or an output below them: no table is read there.
_NO_TABLES = ("vectors", "image_root")
_RENAMED_VALUES = {("--engine", "null"): "fake"}


def run(config_type: type[T], job: str) -> None:
    """Parses the command line, then imports and calls the job, `package.module:function`, so that `--help` stays fast.

    Prints an `InputError` as one line on standard error and exits with 1; with 2 if the command line cannot be parsed.
    Ctrl-C, SIGTERM and SIGHUP end it in one line too, with the exit codes that shells give them, 130, 143 and 129.
    """
    require_utf8()
    end_on_signals()
    # With `uv run`, Ray would send the working folder to its workers and build their environments again.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with unbreakable_output():
        _run(config_type, job)


def _run(config_type: Any, job: str) -> None:
    try:
        config = parse(config_type, sys.argv[1:])
        with visible_output():
            pkgutil.resolve_name(job)(config)
    except InputError as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        sys.exit(2 if isinstance(error, FlagValueError) else 1)
    except KeyboardInterrupt as interrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        sys.exit(*interrupt.args or (130,))


def parse(config_type: type[T], args: list[str]) -> T:
    """Returns the settings in a command line's arguments, with local paths made absolute.

    Raises:
        InputError: for a value out of its bounds, flags that do not go together, a URI with a misspelled scheme, or an
            output that is an input's folder or below it.
        FlagValueError: for a value of the wrong type, or not among a flag's choices.
        SystemExit: with code 2 for an unknown or missing flag.
    """
    parsed = tyro.cli(config_type, args=_renamed(args), config=(tyro.conf.OmitArgPrefixes,), registry=_lenient())
    for name, found in _locations(parsed, Uri, ModelName).items():
        for location in found:
            check_scheme(location, flag(name))
    config = absolute(parsed)
    inputs = {name: found for name, found in _locations(config, Uri).items() if name not in _NO_TABLES}
    for output in inputs.pop("output", []):
        check_output(output, {flag(name): found for name, found in inputs.items()})
    return config


def _locations(config: Any, *kinds: Any) -> dict[str, list[str]]:
    """Returns the values of the flags of these types, by field name."""
    found = {}
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        if {*kinds} & {hint, *get_args(hint)} and (value := getattr(config, name)) is not None:
            found[name] = [value] if isinstance(value, str) else list(value)
    return found


def _lenient() -> ConstructorRegistry:
    """Makes tyro pass on what is no number or no choice: pydantic reports it, in one line instead of tyro's box."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number_or_choice(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        is_choice = info.type_origin is Literal
        if not is_choice and info.type not in (int, float):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(get_args(info.type)) + "}" if is_choice else info.type.__name__.upper(),
            instance_from_str=lambda args: args[0] if is_choice else _number(info.type, args[0]),
            is_instance=lambda value: value in get_args(info.type) if is_choice else isinstance(value, int | float),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _number(kind: type[int] | type[float], text: str) -> float | str:
    try:
        return kind(text)
    except ValueError:
        return text


def _renamed(args: list[str]) -> list[str]:
    renamed: list[str] = []
    for index, arg in enumerate(args):
        name, sign, value = arg.partition("=")
        new = _RENAMED_FLAGS.get(name.replace("_", "-"), name)
        value = _RENAMED_VALUES.get((new, value), value)
        new += sign + value
        if index:
            new = _RENAMED_VALUES.get((args[index - 1], new), new)
        if new != arg:
            print(f"warning: '{arg}' is now '{new}'; the next version will not accept the old name", file=sys.stderr)
        renamed.append(new)
    return renamed


def absolute(config: T) -> T:
    """Returns settings with local paths made absolute: a cluster's workers have other working directories."""
    changed: dict[str, Any] = {}
    models = _locations(config, ModelName)
    for name, found in _locations(config, Uri, ModelName).items():
        paths = [_absolute(each, name in models) for each in found]
        changed[name] = paths[0] if isinstance(getattr(config, name), str) else tuple(paths)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def _absolute(name: str, is_model: bool) -> str:
    if "://" in name or name.startswith("file:") or (is_model and not Path(name).expanduser().exists()):
        return name
    return str(Path(name).expanduser().absolute())
