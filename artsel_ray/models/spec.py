"""`spec.json`: the prompt specification that is stored with a trained model, and how flags go with it."""

import dataclasses
from typing import Any

from artsel_ray import storage
from artsel_ray.config import Output, PromptSettings
from artsel_ray.errors import InputError
from artsel_ray.prompts.spec import PromptSpec

SPEC = "spec.json"
# Fields that an earlier version's files lack or name otherwise; the defaults are what there was then.
_ADDED = ("asset_kind", "assets", "resize_to_pixels")
_RENAMED = {"kept_pixels": "resize_to_pixels"}


def write_spec(uri: str, spec: PromptSpec) -> None:
    """Writes a model folder's `spec.json`."""
    storage.write_json(storage.join(uri, SPEC), dataclasses.asdict(spec))


def read_spec(uri: str) -> PromptSpec | None:
    """Reads a model folder's `spec.json`, which must be of this version; returns None where there is none."""
    path = storage.join(uri, SPEC)
    if not storage.exists(path):
        return None
    values = storage.read_json(path)
    defaults = {field.name: field.default for field in dataclasses.fields(PromptSpec)}
    if isinstance(values, dict):
        values = {_RENAMED.get(name, name): value for name, value in values.items()}
        values = {name: defaults[name] for name in _ADDED} | values
    if not isinstance(values, dict) or set(values) != set(defaults):
        raise InputError(
            f"{path} does not have the fields {sorted(defaults)}; the model was trained with another version"
        )
    if values["template"] != defaults["template"]:
        raise InputError(
            f"{path} asks for template {values['template']!r}, this version renders {defaults['template']!r}; "
            "score with the version that trained the model"
        )
    return PromptSpec(**values)


def resolve_prompt_spec(
    trained_for: PromptSpec | None, flags: PromptSettings, default_output: Output = "text", must_match: str = "",
    **more: Any,
) -> PromptSpec:  # fmt: skip
    """Returns a model's own prompt, or the default one for a model without one, with what the flags change.

    Args:
        flags: None, or a layout of `auto`, leaves a field as it is.
        default_output: of a model without a prompt; images are always answered with numbers.
        must_match: the model's name, if flags must not change its own prompt: scoring obeys it, training need not.
        more: other fields of the prompt by name; None leaves one as it is.

    Raises:
        InputError: if the prompt cannot be rendered, or is another one than the model's and must match.
    """
    # The flag of `output` is --output-format.
    fields = {name.removesuffix("_format"): value for name, value in dataclasses.asdict(flags).items()} | more
    given = {name: value for name, value in fields.items() if value not in (None, "auto")}
    if trained_for is None:
        return PromptSpec(**{"output": "number" if flags.assets == "image" else default_output, **given})
    changed = [f"{name} {value}" for name, value in given.items() if getattr(trained_for, name) != value]
    if changed and must_match:
        listed = ", ".join(changed)
        raise InputError(f"{must_match} was trained for another prompt than {listed}; leave these flags out")
    return dataclasses.replace(trained_for, **given)
