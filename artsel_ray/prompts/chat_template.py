"""A model's chat template, rendered in a process of its own.

A template is a program that comes with a model. transformers' sandbox keeps it away from files and from Python's
insides, but not from endless loops and texts.
"""

import datetime
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from artsel_ray import limited_process
from artsel_ray.errors import InputError

# Chat templates write today's date, Llama 3's unless given one. A prompt must not change from one day to the next.
_NOW = datetime.datetime(2024, 7, 26)
_SECONDS, _MAX_LETTERS = 3, 1_000_000

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
    turn, of_all_roles = limited_process.call(f"{__name__}:render", _SECONDS, *arguments)
    return turn, of_all_roles


def render(template: str, content: str, special_tokens: str) -> tuple[str, str]:
    """Returns a template's text of a turn, and of all roles; content and special tokens are JSON.

    Only for a process with limits.
    """
    turn = _render(template, ["user"], content, special_tokens)
    for roles in (["system", "user", "assistant", "user"], ["user", "assistant", "user"]):
        try:
            return turn, _render(template, roles, content, special_tokens)
        except Exception:  # noqa: BLE001  # a template refuses roles with errors of its own
            continue
    return turn, ""


def _render(template: str, roles: Sequence[str], content: str, special_tokens: str) -> str:
    messages = [{"role": role, "content": json.loads(content)} for role in roles]
    pinned = {"date_string": _NOW.strftime("%d %b %Y"), "strftime_now": _NOW.strftime}
    variables = json.loads(special_tokens) | pinned
    rendered: Any = render_jinja_template([messages], chat_template=template, add_generation_prompt=True, **variables)
    text = str(rendered[0][0])
    text.encode()  # a text that is no UTF-8 fails here
    if len(text) > _MAX_LETTERS:
        raise ValueError(f"it writes more than {_MAX_LETTERS:,} letters")
    return text
