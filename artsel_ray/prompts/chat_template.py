"""A model's chat template, rendered in a process of its own.

A template is a program that comes with a model. transformers' sandbox keeps it away from files and from Python's
insides, but not from endless loops and texts.
"""

import json
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from artsel_ray import limited_process, storage
from artsel_ray.errors import InputError
from artsel_ray.packages import cache_folder

_RENDER, _SECONDS = "artsel_ray.prompts.chat_rendering:render", 3

Content = str | list[dict[str, str]]


def chat_turn(renderer: Any, content: Content) -> str:
    """Returns the text of a user's message and of the start of the model's answer, by a chat template.

    Args:
        renderer: a tokenizer or processor from transformers, with a template.
        content: text, or for processors its parts, `{"type": "text", "text": …}` or `{"type": "image"}`.

    Raises:
        InputError: if the template fails, does not end, or writes without end.
    """
    return _chats(renderer, content)[0]


def chat_of_all_roles(renderer: Any, content: Content) -> str:
    """Returns the text of a chat in which system, user and assistant say `content`, as far as a template takes them.

    Empty if it takes no assistant. Arguments and errors as for `chat_turn`.
    """
    return _chats(renderer, content)[1]


def _chats(renderer: Any, content: Content) -> tuple[str, str]:
    tokenizer, template = getattr(renderer, "tokenizer", renderer), renderer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    special_tokens = json.dumps(tokenizer.special_tokens_map, default=str)
    try:
        return _rendered(template, json.dumps(content), special_tokens)
    except limited_process.LimitError as error:
        folder = f"{name}: " if (name := getattr(tokenizer, "name_or_path", "")) else ""
        raise InputError(f"{folder}the model's chat template {error}; take another model") from None


@lru_cache(maxsize=64)
def _rendered(*arguments: str) -> tuple[str, str]:
    # Kept on the machine: the other process takes a second, and every actor would start one.
    name = storage.fingerprint(version("transformers"), *arguments)
    kept = str(cache_folder() / "chat_templates" / f"{name}.json")
    with suppress(InputError, ValueError):  # not there, or damaged
        turn, of_all_roles = storage.read_json(kept)
        return turn, of_all_roles
    turn, of_all_roles = limited_process.call(_RENDER, _SECONDS, *arguments)
    with suppress(InputError, OSError):  # the cache may be read-only
        storage.write_json(kept, [turn, of_all_roles])
    return turn, of_all_roles
