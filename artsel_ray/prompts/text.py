"""The wording of prompts, after the paper's: instruction, history, title and options, question, answer.

Every function returns the text of one prompt segment. A segment is tokenized by itself, in training and in scoring, so
that a title's options and a user's history are tokenized once and joined as ids.
"""

import datetime
from collections.abc import Sequence

from artsel_ray.config import AssetKind, Output
from artsel_ray.prompts.escaping import escape, label
from artsel_ray.prompts.spec import PromptSpec

HISTORY_HEAD = "\n\nWatch history, oldest first:"
HISTORY_EMPTY = "\n- nothing watched yet"
PREDICTION = "Prediction: "
REASON = "Reason:"

PLURALS: dict[AssetKind, str] = {"artwork": "artworks", "synopsis": "synopses", "trailer": "trailers"}


def instruction(kind: AssetKind) -> str:
    """Returns the segment that every prompt begins with."""
    return (
        "You are an expert in movies and shows. Given a user's watch history, predict which of the available "
        f"{PLURALS[kind]} of a new title this user would like the most."
    )


def question(spec: PromptSpec) -> str:
    """Returns the segment that asks for the answer, after options and history."""
    verb = "First give the reason, then output" if spec.reason else "Output"
    best = f"the best {spec.asset_kind}"
    return f"\n\n{verb} the number of {best}." if spec.output == "number" else f"\n\n{verb} {best} in text."


def described_title(name: str, genres: Sequence[str]) -> str:
    """Returns the segment of a title's name and genres, escaped: ` Heat (Action, Crime)`."""
    shown = ", ".join(escape(genre) for genre in genres)
    return f" {escape(name)} ({shown})" if shown else f" {escape(name)}"


def history_date(date: datetime.date | None) -> str:
    """Returns the segment that begins a line of history: its date, if it is known."""
    return f"\n- {date.isoformat()}:" if date else "\n-"


def history_watch(minutes: int | None) -> str:
    """Returns the segment that ends a line of history: `, watched 96 min`, empty if the time is not known."""
    return "" if minutes is None else f", watched {minutes} min"


def new_title(name: str, genres: Sequence[str], kind: AssetKind) -> str:
    """Returns the segment that names the title whose asset is to be chosen and introduces its options."""
    return f"\n\nNew title:{described_title(name, genres)}\nAvailable {PLURALS[kind]}:"


def option_head(index: int, output: Output) -> str:
    """Returns the segment before an option's `<option>` token: a line break, and its number if answers are numbers."""
    return f"\n{label(index)}. " if output == "number" else "\n"


def option_text(caption: str) -> str:
    """Returns the segment between an option's two tokens; the answer in text is the same."""
    return f" {escape(caption)}"


def answer_text(index: int, caption: str, output: Output) -> str:
    """Returns the segment between the answer's two tokens."""
    return f" {label(index)}" if output == "number" else option_text(caption)
