"""A model's chat template, asked for one turn of a user."""

from typing import Any

# Llama 3's chat template writes the current day unless told another; a prompt must not change overnight.
_DATE = "26 Jul 2024"


def turn(renderer: Any, content: str | list[dict[str, str]]) -> str:
    """Returns what comes of a user's message and the start of the model's.

    Args:
        renderer: a tokenizer, or a processor of pictures and text, with a chat template.
        content: text, or for processors its parts.
    """
    messages = [{"role": "user", "content": content}]
    # A processor complains of what its template does not ask for.
    dated = {"date_string": _DATE} if "date_string" in str(renderer.chat_template) else {}
    return str(renderer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **dated))
