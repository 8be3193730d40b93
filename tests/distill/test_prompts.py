import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from artsel_ray.distill.prompts import TeacherPrompts, rationale_of
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import HISTORY

SPEC = PromptSpec(reason=True)
CAPTIONS = ["A red tower.", "Two friends laugh by the sea."]
MOMENT = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
ITEM = {"timestamp": MOMENT, "title_name": "Heat", "genres": ["Crime"], "watch_seconds": 60.0}
PLENTY = np.array([4096])
# The end of QwQ-32B's chat template: the thinking is open when the model begins to write.
QWQ_TURN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
QWQ = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}" + QWQ_TURN

SHARED = (
    "<|im_start|>user\nYou are an expert in movies and shows. Given a user's watch history, predict which of the "
    "available artworks of a new title this user would like the most.\n\nNew title: Up (Comedy)\nAvailable artworks:\n"
    "<option> A red tower.</option>\n<option> Two friends laugh by the sea.</option>"
    "\n\nWatch history, oldest first:\n- 2024-05-01: Heat (Crime), watched 1 min"
)


def teacher(tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> TeacherPrompts:
    if template is not None:
        tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
        tokenizer.chat_template = template
    return TeacherPrompts(PromptTokenizer(tokenizer, SPEC))


def questions(prompts: TeacherPrompts, label: int, rationale: str) -> tuple[list[int], list[int]]:
    options = prompts.tokenizer.options("Up", ["Comedy"], CAPTIONS)
    history = prompts.tokenizer.histories(pa.array([[ITEM]], HISTORY), PLENTY).ids[0].values.to_numpy()
    return prompts.explain(options, history, label).tolist(), prompts.predict(options, history, rationale).tolist()


def test_second_question_is_the_students_prompt_with_its_rationale(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = teacher(tokenizer)
    assert not prompts.thinks_first
    _, predict = questions(prompts, 1, "Towers.")
    own = prompts.tokenizer
    options = own.options("Up", ["Comedy"], CAPTIONS)
    history = own.histories(pa.array([[ITEM]], HISTORY), PLENTY).ids[0].as_py()
    example = own.example(options, history, options.answers[0], "Towers.")
    assert predict == example.ids[: -len(options.answers[0]) - len(own.end)]


def test_golden_text_for_a_teacher_that_thinks(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = teacher(tokenizer, QWQ)
    assert prompts.thinks_first
    explain, predict = (str(prompts.tokenizer.tokenizer.decode(ids)) for ids in questions(prompts, 1, "Likes <sea>."))
    turn = "<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert explain.startswith(
        SHARED + "\n\nAmong these artworks the user liked this one the most:\n<option> Two friends laugh by the sea."
        "</option>\n\nExplain in two or three sentences"
    )
    assert explain.endswith(f"do not say what was liked, chosen or correct.{turn}")
    assert predict == (
        f"{SHARED}\n\nFirst give the reason, then output the best artwork in text.{turn}"
        "\n</think>\n\nReason: Likes ‹sea›.\nPrediction: <option>"
    )


def test_only_the_first_question_contains_the_truth(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = teacher(tokenizer)
    explained, predicted = zip(*(questions(prompts, label, "Because.") for label in (0, 1)), strict=True)
    assert explained[0] != explained[1]
    assert predicted[0] == predicted[1]


@pytest.mark.parametrize("template", [None, QWQ])
def test_both_questions_with_their_answers_fit_next_to_the_history(
    tokenizer: PreTrainedTokenizerBase, template: str | None
) -> None:
    prompts = teacher(tokenizer, template)
    own, options = prompts.tokenizer, prompts.tokenizer.options("Up", ["Comedy"], CAPTIONS)
    for max_tokens in (1, 2000):
        budget = prompts.budget(options, max_tokens, 3000)
        history = np.zeros(budget, dtype=np.int32)
        longest = [len(prompts.explain(options, history, label)) + max_tokens for label in (0, 1)]
        rationale = own.rationale("word " * 999)
        assert len(rationale) == SPEC.reason_tokens
        predicting = len(prompts.predict(options, history, "word " * 999)) + len(options.answers[1]) + len(own.end)
        assert max(*longest, predicting) <= 3000
        # Not wasteful: the empty rationale's own tokens are all that is counted twice.
        assert max(*longest, predicting) >= 3000 - 1
    assert prompts.budget(options, 3000, 3000) == -1


def test_only_title_first_specs_with_a_rationale_are_accepted(tokenizer: PreTrainedTokenizerBase) -> None:
    for spec in (PromptSpec(), PromptSpec(layout="user_first", reason=True)):
        with pytest.raises(ValueError, match="title_first and a reason"):
            TeacherPrompts(PromptTokenizer(tokenizer, spec))


@pytest.mark.parametrize(
    ("generated", "thinks_first", "rationale"),
    [
        ("They like storms.", False, "They like storms."),
        ("<think>Option 2, hm.\n</think>\n\nThey like storms.", False, "They like storms."),
        ("Option 2, hm.\n</think>\n\nThey like storms.", True, "They like storms."),
        ("a</think>b</think> c", True, "c"),
        ("They like storms.", True, None),
        ("<think>They like", False, None),
        ("a</think> b <think> c", True, None),
        ("</think>", True, ""),
        ("  **Reason:** They\nlike storms.", False, "They like storms."),
        ("### Explanation:\nThey like storms.", False, "They like storms."),
        ("Reasoning: They like <b>.", False, "They like ‹b›."),
        ("The reason: storms.", False, "The reason - storms."),
    ],
)
def test_thinking_and_labels_are_cut_off(generated: str, thinks_first: bool, rationale: str | None) -> None:
    assert rationale_of(generated, thinks_first) == rationale


TEXT = st.text(max_size=60)


@given(TEXT, TEXT)
def test_thinking_is_removed(thought: str, text: str) -> None:
    expected = rationale_of(text, False)
    for thinking in (f"<think>{thought}</think>", f"<think>{thought}</think><think></think>"):
        assert rationale_of(thinking + text, False) == expected
    assert rationale_of(f"{thought}</think>{text}", True) == expected


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "Reason:", " "]), max_size=12).map("".join))
def test_rationales_never_contain_thinking_tags(generated: str) -> None:
    for thinks_first in (False, True):
        rationale = rationale_of(generated, thinks_first)
        assert rationale is None or ("think" not in rationale and "\n" not in rationale)
        assert (rationale is None) == ("<think>" in generated.rpartition("</think>")[2] or
                                    (thinks_first and "</think>" not in generated))  # fmt: skip
