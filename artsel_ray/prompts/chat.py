"""One user turn in a model's chat template."""

from typing import Any

# Llama 3's chat template writes today's date unless given one; a prompt must not change from one day to the next.
_DATE = "26 Jul 2024"


def turn(renderer: Any, content: str | list[dict[str, str]]) -> str:
    """Returns the text of a user's message and of the start of the model's answer.

    Args:
        renderer: a tokenizer, or a processor of images and text, with a chat template.
        content: text, or for processors its parts.
    """
    messages = [{"role": "user", "content": content}]
    # A processor warns about variables that its template does not use.
    dated = {"date_string": _DATE} if "date_string" in str(renderer.chat_template) else {}
    return str(renderer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **dated))
