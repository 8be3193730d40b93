"""`spec.json`: the prompt specification stored beside a trained model."""

import dataclasses
import typing

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.prompts.spec import PromptSpec

SPEC = "spec.json"
# Fields that the first models' files lack: there was nothing else then.
_LATER = ("asset_kind", "assets", "kept_pixels")


def write_spec(uri: str, spec: PromptSpec) -> None:
    """Writes a model folder's `spec.json`."""
    storage.write_json(storage.join(uri, SPEC), dataclasses.asdict(spec))


def read_spec(uri: str) -> PromptSpec | None:
    """Reads a model folder's `spec.json`, or returns None where there is none.

    Raises:
        InputError: if its fields or template are not those of this version.
    """
    path = storage.join(uri, SPEC)
    if not storage.exists(path):
        return None
    values = storage.read_json(path)
    if isinstance(values, dict):
        values = {name: getattr(PromptSpec, name) for name in _LATER} | values
    fields = typing.get_type_hints(PromptSpec)
    if not isinstance(values, dict) or set(values) != set(fields):
        raise InputError(f"{path} has not the fields {sorted(fields)}; the model was trained with another version")
    if values["template"] != PromptSpec.template:
        raise InputError(
            f"{path} asks for template {values['template']!r}, this version renders {PromptSpec.template!r}; "
            "score with the version that trained the model"
        )
    return PromptSpec(**values)
