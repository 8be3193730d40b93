"""The two tokens that wrap an option, the labels of options, and the escaping of text from data."""

import re
import unicodedata

OPTION = "<option>"
OPTION_END = "</option>"

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Invisible characters: Unicode's category Cf, variation selectors, and fillers. One between "Prediction" and its colon
# would hide both from `_ANSWER_WORDS`.
_INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Joiners between two characters that are not Latin (emoji, Persian, Indic), and an emoji's variation selector, stay.
_JOINABLE = rf"[^\x00-\u036f\s：{_INVISIBLE}]"
_DROPPED = re.compile(
    rf"[{_INVISIBLE}](?<!{_JOINABLE}[\ufe0e\ufe0f])(?!(?<={_JOINABLE}[\u200c\u200d]){_JOINABLE})(?!(?<={_JOINABLE}\ufe0f\u200d){_JOINABLE})"
)
_ANGLES = str.maketrans({"<": "‹", ">": "›"})
_ANSWER_WORDS = re.compile(r"(prediction|reason)\s*[:：]", re.IGNORECASE)
_STRUCTURE = re.compile(rf"[<>]|{_ANSWER_WORDS.pattern}", re.IGNORECASE)


def label(index: int) -> str:
    """Returns the number of the option with this index; numbers start at 1."""
    return str(index + 1)


def escape(text: str) -> str:
    """Returns text from data as one line that cannot be read as a prompt's structure.

    - Invisible characters are dropped, except those that join emoji or letters that are not Latin.
    - White space and control characters become single spaces, so that data never begins a line.
    - Angle brackets become ‹ and ›, so that data has no `<option>` and no chat marker.
    - `Prediction:` and `Reason:` lose their colon.
    - Compatibility characters (NFKC), such as full-width letters, become plain where they spell one of these.

    Tokenizing is the second defense, which knows a model's normalizer and its template: `markers.DataTokenizer`.
    """
    shown = _one_line(text)
    if not shown.isascii():
        # Some tokenizers normalize: full-width letters and brackets would become structure after this.
        normal = _one_line(unicodedata.normalize("NFKC", shown))
        if len(_STRUCTURE.findall(normal)) > len(_STRUCTURE.findall(shown)):
            shown = normal
    return _ANSWER_WORDS.sub(r"\1 -", shown.translate(_ANGLES))


def _one_line(text: str) -> str:
    return _SPACE.sub(" ", _DROPPED.sub("", text)).strip()
