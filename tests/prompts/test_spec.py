import dataclasses
import json
import pickle
from typing import Any

import pytest

from artsel_ray.errors import InputError
from artsel_ray.prompts.spec import PromptSpec

IMAGES: dict[str, Any] = {"assets": "image", "output": "number"}


def test_a_spec_is_stored_and_read_as_its_fields() -> None:
    spec = PromptSpec(layout="user_first", output="number", reason=True, history_length=7)
    values = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert PromptSpec(**values) == spec
    assert values == {
        "layout": "user_first", "output": "number", "reason": True, "history_length": 7, "history_tokens": 2048,
        "caption_tokens": 256, "reason_tokens": 256, "asset_kind": "artwork", "assets": "caption",
        "resize_to_pixels": 262_144, "template": "paper-1",
    }  # fmt: skip


def test_equal_specs_are_one_key_also_after_a_worker() -> None:
    spec = PromptSpec(**IMAGES)
    assert {spec: 1}[pickle.loads(pickle.dumps(PromptSpec(**IMAGES)))] == 1  # noqa: S301
    assert spec != dataclasses.replace(spec, history_length=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.reason = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"assets": "image"}, "--output-format is text; with --assets image the answer is a number"),
        ({**IMAGES, "layout": "user_first"}, "--layout is user_first; with --assets image it must be title_first"),
        ({"layout": "segments"}, "--layout is 'segments'; it must be 'title_first' or 'user_first'"),
        ({"history_length": -1}, "--history-length is -1; it must be at least 0"),
        ({"reason_tokens": 0}, "--reason-tokens is 0; it must be at least 1"),
        ({"kept_pixels": 5}, "--kept-pixels is no flag of PromptSpec"),
    ],
)
def test_a_spec_that_cannot_be_rendered_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptSpec(**values)
