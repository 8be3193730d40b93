"""What a teacher is asked: to explain a choice that it is told of, then to choose by its explanation alone.

Both questions begin with the same ids, instruction, title with options and history, which an engine then computes
once. The second one is the prompt of a student that writes reasons.
"""

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from artsel_ray.prompts import text as render
from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.tokenizer import Ids, Options, PromptTokenizer

WORDING = "teacher-1"
"""Version of the wording; changes whenever a token of any question would."""

_TOLD = "\n\nAmong these {kinds} the user liked this one the most:\n"
_EXPLAIN = (
    "\n\nExplain in two or three sentences what in the watch history makes this user like it more than the others: "
    "the user's taste, and what in the {kind} meets it. Write as somebody who only predicts: do not copy the "
    "{kind}'s text, do not mention options or their numbers, and do not say what was liked, chosen or correct."
)
_THINK, _THINK_END = "<think>", "</think>"
# What models put before an explanation although nobody asked for it, with the marks of bold text or a heading.
_LABEL = re.compile(r"^[#*\s]*(?:reason|reasoning|explanation)[*\s]*:[*\s]*", re.IGNORECASE)


class TeacherPrompts:
    """A teacher's questions as token ids, out of the pieces of its tokenizer."""

    def __init__(self, pieces: PromptTokenizer) -> None:
        """Takes the teacher's tokenizer, whose spec has title_first and a reason.

        Raises:
            ValueError: for a spec with another order or without a reason.
        """
        if pieces.spec.layout != "title_first" or not pieces.spec.reason:
            raise ValueError("a teacher's spec has layout title_first and a reason")
        self.pieces = pieces
        kind = pieces.spec.asset_kind
        told, explain = _TOLD.format(kinds=render.PLURALS[kind]), _EXPLAIN.format(kind=kind)
        self._told, self._explain, self._question, self._reason = pieces.encode(
            [told, explain, render.question(pieces.spec), render.REASON]
        )

    @cached_property
    def thinks_first(self) -> bool:
        """Whether the chat template opens the teacher's thinking, as QwQ's and DeepSeek-R1's do."""
        turn = str(self.pieces.tokenizer.decode(self.pieces.turn))
        return turn.rfind(_THINK) > turn.rfind(_THINK_END)

    @cached_property
    def _thought(self) -> list[int]:
        """Ids that end a thinking that the template has opened: the second question wants no other reason."""
        if not self.thinks_first:
            return []
        return list(self.pieces.tokenizer(f"\n{_THINK_END}\n\n", add_special_tokens=False)["input_ids"])

    def explain(self, options: Options, history: Ids, label: int) -> Ids:
        """Returns the first question: why did the user like the candidate `label`?"""
        pieces = self.pieces
        told = [*self._told, pieces.option, *options.answers[label], pieces.option_end]
        return self._ask(options.prefix, history, [*told, *self._explain, *pieces.turn])

    def predict(self, options: Options, history: Ids, reason: str) -> Ids:
        """Returns the second question: what does the user like, by this reason? The answer's ids follow."""
        pieces = self.pieces
        asked = [*self._question, *pieces.turn, *self._thought, *self._reason]
        return self._ask(options.prefix, history, [*asked, *pieces.rationale(reason), *pieces.after_rationale])

    def budget(self, options: Options, max_tokens: int, most: int) -> int:
        """Returns how many of `most` tokens both questions with their answers leave for a history; -1 for too few.

        Args:
            max_tokens: that the teacher may write for an explanation.
        """
        pieces, nothing = self.pieces, np.empty(0, dtype=np.int32)
        answer = max(map(len, options.answers)) + len(pieces.end)
        explaining = max(len(self.explain(options, nothing, i)) for i in range(len(options.answers))) + max_tokens
        predicting = len(self.predict(options, nothing, "")) + pieces.spec.reason_tokens + answer
        budget = most - max(explaining, predicting)
        return budget if budget >= pieces.min_history_tokens else -1

    def _ask(self, prefix: Sequence[int], history: Ids, asked: list[int]) -> Ids:
        return np.concatenate(
            (np.array([*self.pieces.head, *prefix], np.int32), np.asarray(history, np.int32), np.array(asked, np.int32))
        )


def reason_of(written: str, thinks_first: bool) -> str | None:
    """Returns the reason in what a teacher wrote, as one line: without its thinking and without a label before it.

    None if the thinking has not ended. What is left is escaped, as all text from data is.

    Args:
        thinks_first: whether the prompt has opened the thinking already.
    """
    _, ended, said = written.rpartition(_THINK_END)
    if _THINK in said or (thinks_first and not ended):
        return None
    return escape(_LABEL.sub("", said))
