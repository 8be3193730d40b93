"""What the process with limits does with a chat template: a module of its own, so that only it imports so much."""

import datetime
import json
from collections.abc import Sequence
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

# Chat templates write today's date, Llama 3's unless given one. A prompt must not change from one day to the next.
_NOW = datetime.datetime(2024, 7, 26)
_MAX_LETTERS = 1_000_000


def render(template: str, content: str, special_tokens: str) -> tuple[str, str]:
    """Returns a template's text of a turn, and of all roles; content and special tokens are JSON."""
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
