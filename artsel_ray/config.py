"""Shared parts of the jobs' settings: bounded types, and groups of flags.

pydantic checks every value, and its errors name the flag. Imports neither torch, ray,
vllm, transformers nor pyarrow, so that `--help` is fast.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar, dataclass_transform

import pydantic
import pydantic.dataclasses
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


class FlagValueError(InputError):
    """A value of the wrong type, or not among a flag's choices. Jobs exit with 2, as for an unknown flag."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass of flags: pydantic checks types and bounds, validators everything else.

    Raises:
        InputError: from the class's constructor, naming each wrong flag, its value and what it must be.
    """
    checks = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, kw_only=True, config=checks)
    construct = made.__init__

    @functools.wraps(construct)
    def validated(self: Any, **values: Any) -> None:
        try:
            construct(self, **values)
        except pydantic.ValidationError as error:
            raise _input_error(cls, error) from None

    made.__init__ = validated
    return made


def flag(name: str) -> str:
    """Returns the flag of a field."""
    return f"--{name.replace('_', '-')}"


# What a value must be, by pydantic's types of errors; `ctx` has the names in braces.
_BOUNDS = {
    "greater_than_equal": "at least {ge:,.15g}",
    "less_than_equal": "at most {le:,.15g}",
    "greater_than": "more than {gt:,.15g}",
    "less_than": "less than {lt:,.15g}",
    "finite_number": "a finite number",
}
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    "tuple_type": "a list",
    "literal_error": "{expected}",
}


def _input_error(config_type: type, error: pydantic.ValidationError) -> InputError:
    """Returns pydantic's errors in the words of the command line: its own have field names, jargon and URLs."""
    details = error.errors(include_url=False)
    found: dict[str, str] = {}
    for each in details:
        name = _field(config_type, each["loc"])
        if each["type"] == "missing":
            found[f"{flag(name)} is missing"] = ""
        elif each["type"] == "unexpected_keyword_argument":
            found[f"{flag(name)} is no flag of {config_type.__name__}"] = ""
        else:
            expected = {**_BOUNDS, **_KINDS}.get(each["type"], each["msg"]).format(**each.get("ctx", {}))
            # A value that fits no member of a union has an error for each.
            problem = f"{flag(name)} is {each['input']!r}; it must be "
            found[problem] = f"{found[problem]} or {expected}" if problem in found else expected
    message = "; ".join(problem + expected for problem, expected in found.items())
    is_bound = any(each["type"] in _BOUNDS for each in details)
    return InputError(message) if is_bound else FlagValueError(message)


def _field(config_type: type, location: Iterable[object]) -> str:
    names = [part for part in location if isinstance(part, str)]
    group = next((each for each in _groups(config_type) if each.name == names[0]), None)
    return names[1] if group and len(names) > 1 else names[0]


def _groups(config_type: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(config_type) if dataclasses.is_dataclass(field.default)]


@settings
class EngineSettings:
    """The engines that run the model. Each is an actor of Ray Data."""

    engines: Count = 1
    """Number of engines, each on its own GPU or its own share of the CPUs."""
    tensor_parallel: Count = 1
    """GPUs of one node that share one engine, for models that do not fit on one; vLLM only."""
    gpus_per_engine: Annotated[float, Ge(0), Le(1000)] | None = None
    """GPUs for each engine; 0.5 puts two on one, 0 is CPUs. Give it where GPU machines start on demand. Default:
    --tensor-parallel if the cluster has GPUs, else 0."""
    gpu_memory_utilization: Annotated[float, Gt(0), Le(1)] | None = None
    """Fraction of a GPU's memory that an engine takes; vLLM only. Default: 0.92 of its share of the GPU."""
    max_num_seqs: Count | None = None
    """Maximum number of prompts that an engine computes together; vLLM only. Default: vLLM's."""
    dtype: Dtype = "auto"
    """Number format of the weights; 'auto' is float32 on CPUs and the model's own on GPUs."""
    quantization: Literal["fp8"] | None = None
    """Round the weights to fp8 when they are loaded, on GPUs; vLLM only. Changes results."""
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    """Number format of the cache of keys and values; 'auto' is that of the weights; vLLM only. Changes results."""
    max_model_length: Annotated[int, Ge(64)] = 16_384
    """Maximum length of prompt and answer together, in tokens; limited by the model's own maximum."""

    @pydantic.model_validator(mode="after")
    def _gpus_fit(self) -> Self:
        gpus, parallel = self.gpus_per_engine, self.tensor_parallel
        if gpus is not None and gpus != parallel and max(gpus, parallel) > 1:
            raise InputError(f"--gpus-per-engine is {gpus:g}; it must be the same as --tensor-parallel, {parallel}")
        return self

    def check_engine(self, engine: str) -> None:
        """Makes sure that flags which only vLLM obeys are given for vLLM only."""
        names = ("tensor_parallel", "gpu_memory_utilization", "max_num_seqs", "kv_cache_dtype", "quantization")
        given = [flag(name) for name in names if getattr(self, name) != getattr(EngineSettings, name)]
        if engine == "transformers" and given:
            raise InputError(f"{given[0]} is for --engine vllm only; leave it out")

    @property
    def precision(self) -> str:
        """Suffix of a model's id where engines round its numbers: other answers have another id."""
        cache = "" if self.kv_cache_dtype == "auto" else f"+kv-{self.kv_cache_dtype}"
        return f"+{self.quantization}{cache}" if self.quantization else cache


@settings
class RowLimits:
    """What one row of a table may hold; a row with more is invalid, like any other bad row."""

    max_text_bytes: Annotated[int, Ge(1), Le(10**7)] = 200_000
    """Maximum length of a caption or synopsis, in bytes of UTF-8. Names have 2,048, genres 256, ids and URIs 4,096."""
    max_row_items: Annotated[int, Ge(1), Le(10**6)] = 10_000
    """Maximum number of title_ids, and of history items, of one row."""
    max_genres: Annotated[int, Ge(1), Le(10**5)] = 100
    """Maximum number of genres of one title."""


DEFAULT_LIMITS = RowLimits()
LIMIT_FLAGS = tuple(field.name for field in dataclasses.fields(RowLimits))


def limits_identity(limits: RowLimits) -> dict[str, Any]:
    """Returns limits as a part of a run's identity: none if they are the defaults, as in versions without them."""
    return {} if limits == DEFAULT_LIMITS else {"limits": resolved(limits)}


@settings
class PromptSettings:
    """How prompts read. A trained model brings its own spec.json, which these flags must not contradict."""

    layout: Layout | None = None
    """Order of the prompt. Default: title_first."""
    output_format: Output | None = None
    """Form of the model's answer: the caption's text or the option's number. Default: text."""
    history_length: Annotated[int, Ge(0)] | None = None
    """Number of most recent interactions in the prompt. Default: 50."""
    asset_kind: AssetKind | None = None
    """Kind of the candidates: rows of the artworks table with this asset_kind. Default: artwork."""
    assets: Assets | None = None
    """What the model sees of a candidate: its caption, or its image, for a vision-language model, which then answers
    with numbers. Default: caption."""


def resolved(config: Any) -> dict[str, Any]:
    """Returns settings as plain values by field name, groups flattened, for `config.json`."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values |= resolved(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return values


def check_weighting(weight_by_propensity: bool, max_weight: float | None) -> None:
    """Makes sure that the flags of weights by propensity go together."""
    if max_weight is not None and not weight_by_propensity:
        raise InputError(f"--max-weight is {max_weight} and --weight-by-propensity is not given; add it")


def unused_weighting(flags: dict[str, Any]) -> tuple[str, ...]:
    """Returns the flags of weights by propensity if they are off: runs of versions without them are the same runs."""
    return () if flags["weight_by_propensity"] else ("weight_by_propensity", "max_weight")


def from_flags(config_type: type[T], **flags: Any) -> T:
    """Returns settings from plain values by field name, groups flattened, as `resolved` returns them.

    Raises:
        InputError: for an unknown name, a value out of its bounds, or flags that do not go together.
    """
    values = {}
    for group in _groups(config_type):
        names = {field.name for field in dataclasses.fields(group.default)}  # type: ignore[arg-type]
        given = {name: flags.pop(name) for name in names & flags.keys()}
        values[group.name] = dataclasses.replace(group.default, **given)  # type: ignore[type-var]
    return config_type(**values | flags)
