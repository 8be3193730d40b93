"""The two tokens that wrap an option, the labels of options, and the escaping of text from data."""

import re

OPTION = "<option>"
OPTION_END = "</option>"

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_ANGLES = str.maketrans({"<": "‹", ">": "›"})
_ANSWER_WORDS = re.compile(r"(prediction|reason)\s*[:：]", re.IGNORECASE)


def label(index: int) -> str:
    """Returns the number that stands for the option with this index: options count from 1."""
    return str(index + 1)


def escape(text: str) -> str:
    """Returns text from data as one line that cannot be read as a prompt's structure.

    White space and control characters become single spaces, so data never begins a line. Angle brackets become
    ‹ and ›, so it has no `<option>` and no chat marker. `Prediction:` and `Reason:` lose their colon. Tokenizing
    adds the second wall: text from data is never given a special token's id (see `tokenize.py`).
    """
    return _ANSWER_WORDS.sub(r"\1 -", _SPACE.sub(" ", text).strip().translate(_ANGLES))
