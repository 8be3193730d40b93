"""The two questions to a teacher: explain a given choice, then choose by that rationale alone.

Both begin with the same ids, instruction, title with options and history, so that an engine computes them once. The
second question is the prompt of a student that writes rationales.
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

_CHOICE = "\n\nAmong these {kinds} the user liked this one the most:\n"
_EXPLAIN = (
    "\n\nExplain in two or three sentences what in the watch history makes this user like it more than the others: "
    "the user's taste, and what in the {kind} meets it. Write as somebody who only predicts: do not copy the "
    "{kind}'s text, do not mention options or their numbers, and do not say what was liked, chosen or correct."
)
_THINK, _THINK_END = "<think>", "</think>"
# A label that models put before an explanation although none was asked for, with Markdown's signs.
_LABEL = re.compile(r"^[#*\s]*(?:reason|reasoning|explanation)[*\s]*:[*\s]*", re.IGNORECASE)


class TeacherPrompts:
    """A teacher's questions as token ids."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        """Tokenizes what all questions share; a `ValueError` unless the spec is title_first with a rationale."""
        if tokenizer.spec.layout != "title_first" or not tokenizer.spec.reason:
            raise ValueError("a teacher's spec has layout title_first and a reason")
        self.tokenizer = tokenizer
        kind = tokenizer.spec.asset_kind
        choice, explain = _CHOICE.format(kinds=render.PLURALS[kind]), _EXPLAIN.format(kind=kind)
        self._choice, self._explain, self._question, self._reason = tokenizer.encode(
            [choice, explain, render.question(tokenizer.spec), render.REASON]
        )

    @cached_property
    def thinks_first(self) -> bool:
        """Whether the chat template opens the teacher's thinking, as QwQ's and DeepSeek-R1's do."""
        turn = str(self.tokenizer.tokenizer.decode(self.tokenizer.turn))
        return turn.rfind(_THINK) > turn.rfind(_THINK_END)

    @cached_property
    def _end_of_thinking(self) -> list[int]:
        """Ids that close a thinking that the template has opened: the second question already has its rationale."""
        ids = self.tokenizer.tokenizer(f"\n{_THINK_END}\n\n", add_special_tokens=False)["input_ids"]
        return list(ids) if self.thinks_first else []

    def explain(self, options: Options, history: Ids, label: int) -> Ids:
        """Returns the first question: why did the user like the candidate `label`?"""
        tokenizer = self.tokenizer
        choice = [*self._choice, tokenizer.option, *options.answers[label], tokenizer.option_end]
        return self._ask(options.prefix, history, [*choice, *self._explain, *tokenizer.turn])

    def predict(self, options: Options, history: Ids, rationale: str) -> Ids:
        """Returns the second question: which candidate does the user like, by this rationale? The answer follows."""
        tokenizer = self.tokenizer
        question = [*self._question, *tokenizer.turn, *self._end_of_thinking, *self._reason]
        answer = [*tokenizer.rationale(rationale), *tokenizer.after_rationale]
        return self._ask(options.prefix, history, [*question, *answer])

    def budget(self, options: Options, max_tokens: int, max_model_length: int) -> int:
        """Returns the token budget that explaining in `max_tokens` and predicting leave a history; -1 for too few."""
        tokenizer, empty = self.tokenizer, np.empty(0, dtype=np.int32)
        answer = max(map(len, options.answers)) + len(tokenizer.end)
        explaining = max(len(self.explain(options, empty, i)) for i in range(len(options.answers))) + max_tokens
        predicting = len(self.predict(options, empty, "")) + tokenizer.spec.reason_tokens + answer
        budget = max_model_length - max(explaining, predicting)
        return budget if budget >= tokenizer.min_history_tokens else -1

    def _ask(self, prefix: Sequence[int], history: Ids, question: list[int]) -> Ids:
        parts = [*self.tokenizer.head, *prefix], history, question
        return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def rationale_of(generated: str, thinks_first: bool) -> str | None:
    """Returns the rationale in a teacher's text, as one line: without its thinking and without a label before it.

    None if the thinking, which the prompt has opened if `thinks_first`, has not ended. The rationale is escaped, as all
    text from data is.
    """
    _, ended, rationale = generated.rpartition(_THINK_END)
    if _THINK in rationale or (thinks_first and not ended):
        return None
    return escape(_LABEL.sub("", rationale))
