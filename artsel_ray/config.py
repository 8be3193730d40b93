"""What all jobs' settings share: types with their bounds, groups of flags, and the way from a command line to a job.

Each job's settings are a dataclass in its own folder, made by `@settings`. Imports neither torch, ray nor pyarrow, so
that `--help` is fast.
"""

import dataclasses
import functools
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_type_hints

import pydantic
import pydantic.dataclasses
import tyro
from annotated_types import Ge, Gt, Le

from artsel_ray.errors import InputError

T = TypeVar("T")

Uri = Annotated[str, "a path or URI"]
ModelName = Annotated[str, "a model's name, path or URI"]
Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]

AssetKind = Literal["artwork", "synopsis", "trailer"]
Assets = Literal["caption", "image"]
Layout = Literal["title_first", "user_first"]
Output = Literal["text", "number"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# Names of an earlier version, accepted for one more with a warning.
_RENAMED_FLAGS = {
    "--plan": "--estimate-cost",
    "--least-users": "--min-users",
    "--most": "--max-proposals",
    "--kept-pixels": "--resize-to-pixels",
    "--pictures": "--images",
}
_RENAMED_VALUES = {("--engine", "null"): "fake"}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass of a job's flags: pydantic checks the bounds in their types, and validators the rest.

    A validator raises `InputError`, which pydantic passes on.

    Raises:
        InputError: from the class's constructor, naming the flag, its value and what it must be.
    """
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True)
    construct = made.__init__

    @functools.wraps(construct)
    def validated(self: Any, *args: Any, **values: Any) -> None:
        try:
            construct(self, *args, **values)
        except pydantic.ValidationError as error:
            raise InputError("; ".join(map(_message, error.errors()))) from None

    made.__init__ = validated
    return made


def flag(name: str) -> str:
    """Returns the flag of a field."""
    return f"--{name.replace('_', '-')}"


_BOUNDS = {
    "greater_than_equal": "at least {ge:,g}",
    "less_than_equal": "at most {le:,g}",
    "greater_than": "more than {gt:,g}",
    "less_than": "less than {lt:,g}",
}


def _message(error: Any) -> str:
    """Returns pydantic's error in the words of the command line: its own has a field's name and a URL."""
    name = flag(next(part for part in error["loc"] if isinstance(part, str)))
    if error["type"].startswith("missing"):
        return f"{name} is missing"
    if error["type"] in _BOUNDS:
        return f"{name} is {error['input']!r}; it must be {_BOUNDS[error['type']].format(**error['ctx'])}"
    return f"{name} is {error['input']!r}; {error['msg'][:1].lower()}{error['msg'][1:]}"


@settings
class EngineSettings:
    """The engines that run the model. Each is an actor of Ray Data."""

    engines: Count = 1
    """Number of engines, each on its own GPU or its own share of the CPUs."""
    tensor_parallel: Count = 1
    """GPUs that share one engine, for models that do not fit one; vLLM only."""
    dtype: Dtype = "auto"
    """Number format of the weights; 'auto' is float32 on CPUs and the model's own on GPUs."""
    max_model_length: Annotated[int, Ge(64)] = 8192
    """Longest prompt and answer together, in tokens; never more than the model takes."""


@settings
class PromptSettings:
    """How prompts read. A trained model brings its own spec.json, which these flags must not contradict."""

    layout: Layout | None = None
    """Order of the prompt. Default: title_first."""
    output_format: Output | None = None
    """What the model answers with. Default: text."""
    history_length: Annotated[int, Ge(0)] | None = None
    """Number of most recent interactions in the prompt. Default: 50."""
    asset_kind: AssetKind | None = None
    """What the candidates are: rows of the artworks table with this asset_kind. Default: artwork."""
    assets: Assets | None = None
    """What the model sees of a candidate: its caption, or its image, for a vision-language model, which then answers
    with numbers. Default: caption."""


def run(config_type: type[T], job: str) -> None:
    """Parses the command line, then imports the job and runs it, so that `--help` stays fast.

    Exits with 1 and one line on standard error for an `InputError`; unknown flags are tyro's, with 2.

    Args:
        job: the function to call with the settings, as `package.module:function`.
    """
    try:
        config = parse(config_type, sys.argv[1:])
        function: Callable[[T], object] = pkgutil.resolve_name(job)
        function(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)


def parse(config_type: type[T], args: list[str]) -> T:
    """Returns the settings that a command line's arguments give, local paths made absolute.

    Raises:
        InputError: for a value out of its bounds, or flags that do not go together.
    """
    return absolute(tyro.cli(config_type, args=_renamed(args), config=(tyro.conf.OmitArgPrefixes,)))


def _renamed(args: list[str]) -> list[str]:
    """Returns the arguments with an earlier version's names replaced, and warns of each."""
    renamed: list[str] = []
    for place, arg in enumerate(args):
        name, sign, value = arg.partition("=")
        new = _RENAMED_FLAGS.get(name, name) + sign + value
        if place and (args[place - 1], arg) in _RENAMED_VALUES:
            new = _RENAMED_VALUES[args[place - 1], arg]
        if new != arg:
            print(f"warning: '{arg}' is now '{new}'; the next version will not know the old name", file=sys.stderr)
        renamed.append(new)
    return renamed


def absolute(config: T) -> T:
    """Makes local paths absolute: a cluster's workers have other working directories than the user."""
    changed = {}
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        kinds, value = {hint, *get_args(hint)}, getattr(config, name)
        if kinds & {Uri, ModelName} and value is not None:
            paths = [
                _absolute(each, is_model=ModelName in kinds) for each in ([value] if isinstance(value, str) else value)
            ]
            changed[name] = paths[0] if isinstance(value, str) else tuple(paths)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def _absolute(name: str, is_model: bool) -> str:
    if "://" in name or name.startswith("file:") or (is_model and not Path(name).expanduser().exists()):
        return name
    return str(Path(name).expanduser().absolute())


def resolved(config: Any) -> dict[str, Any]:
    """Returns settings as plain values by the names of their flags, for `config.json`."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values |= resolved(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return values


def from_flags(config_type: type[T], **flags: Any) -> T:
    """Returns settings made of values by the names of their flags, as `resolved` gives them.

    Raises:
        InputError: for a value out of its bounds, or flags that do not go together.
    """
    values = {}
    for field in dataclasses.fields(config_type):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(field.default):  # a group, whose flags stand among the others
            names = {each.name for each in dataclasses.fields(field.default)}
            group = {name: flags.pop(name) for name in names & flags.keys()}
            values[field.name] = dataclasses.replace(field.default, **group)  # type: ignore[type-var]
    return config_type(**values | flags)
