"""Text from data never becomes a prompt's structure, in any prompt of training, scoring and distilling."""

import datetime
import random
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from artsel_ray.config import Layout, Output
from artsel_ray.distill.prompts import TeacherPrompts, rationale_of
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import HISTORY
from tests.support.hostile import HOSTILE, draw

LAYOUTS: list[Layout] = ["title_first", "user_first"]
OUTPUTS: list[Output] = ["text", "number"]
SPECS = st.builds(
    PromptSpec,
    layout=st.sampled_from(LAYOUTS),
    output=st.sampled_from(OUTPUTS),
    reason=st.booleans(),
    caption_tokens=st.sampled_from([3, 256]),
)
MOMENT = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
ANSWER_WORDS = re.compile(r"(prediction|reason)\s*[:：]", re.IGNORECASE)


@dataclass(frozen=True)
class Texts:
    """All texts from data in one prompt, and a rationale from a model."""

    name: str
    genres: tuple[str, ...]
    captions: tuple[str, ...]
    watched: tuple[tuple[str, tuple[str, ...]], ...]
    rationale: str

    def calm(self) -> "Texts":
        """Returns harmless texts of the same shape."""
        watched = tuple(("calm", ("calm",) * len(genres)) for _, genres in self.watched)
        return Texts("calm", ("calm",) * len(self.genres), ("calm",) * len(self.captions), watched, "calm")


GENRES = st.lists(HOSTILE, max_size=2).map(tuple)
TEXTS = st.builds(
    Texts,
    name=HOSTILE,
    genres=GENRES,
    captions=st.lists(HOSTILE, min_size=1, max_size=4).map(tuple),
    watched=st.lists(st.tuples(HOSTILE, GENRES), max_size=2).map(tuple),
    rationale=HOSTILE,
)


@lru_cache
def structural(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that only a template may place: all special and added tokens, and every token with a line break."""
    broken = {i for i in range(len(tokenizer)) if re.search(r"[\n\r\u2028]", str(tokenizer.decode([i])))}
    return frozenset(broken | set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values()))


@lru_cache
def renderer(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, spec)


def rendered(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, texts: Texts) -> dict[str, list[int]]:
    """Returns the ids of every kind of prompt with these texts."""
    prompts = renderer(tokenizer, spec)
    options = prompts.options(texts.name, texts.genres, texts.captions)
    items: list[dict[str, Any]] = [
        {"timestamp": MOMENT, "title_name": name, "genres": list(genres), "watch_seconds": 60.0}
        for name, genres in texts.watched
    ]
    history = prompts.histories(pa.array([items], HISTORY), np.array([4096])).ids[0].values.to_numpy()
    prompt = prompts.prompt(options.prefix, history)
    last = len(texts.captions) - 1
    found = {"prompt": prompt.tolist(), "history": history.tolist()}
    # A model may generate any token, special ones included.
    generated = tokenizer(texts.rationale, add_special_tokens=False)["input_ids"]
    found["generated rationale"] = prompts.with_rationale(prompt, generated)[0].tolist()
    rationale = texts.rationale if spec.reason else None
    for index in {0, last}:
        found[f"training {index}"] = prompts.example(options, history, options.answers[index], rationale).ids
    if spec.reason and spec.layout == "title_first":
        teacher = TeacherPrompts(prompts)
        found["teacher, explain"] = teacher.explain(options, history, last).tolist()
        found["teacher, predict"] = teacher.predict(
            options, history, rationale_of(texts.rationale, False) or ""
        ).tolist()
    return found


def check(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, texts: Texts) -> None:
    got, calm = rendered(tokenizer, spec, texts), calmly(tokenizer, spec, texts.calm())
    kept = structural(tokenizer)
    prompts = renderer(tokenizer, spec)
    for name, ids in got.items():
        assert [i for i in ids if i in kept] == [i for i in calm[name] if i in kept], name
        text, harmless = (
            tokenizer.backend_tokenizer.decode(each, skip_special_tokens=False) for each in (ids, calm[name])
        )
        # The words that mark a student's answer are the template's alone.
        assert len(ANSWER_WORDS.findall(text)) == len(ANSWER_WORDS.findall(harmless)), name
        starts = [line.partition(" ")[0] for line in text.split("\n")]
        assert starts == [line.partition(" ")[0] for line in harmless.split("\n")], name
        if name != "history":
            assert ids[: len(prompts.head)] == prompts.head
    assert got["prompt"][-len(prompts.tail) :] == prompts.tail
    assert got["generated rationale"][-len(prompts.after_rationale) :] == prompts.after_rationale


@lru_cache(maxsize=1000)
def calmly(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, texts: Texts) -> dict[str, list[int]]:
    return rendered(tokenizer, spec, texts)


@settings(max_examples=150, deadline=None)
@given(spec=SPECS, texts=TEXTS)
def test_data_never_becomes_structure(
    tokenizer: PreTrainedTokenizerBase, llama_3: PreTrainedTokenizerBase, spec: PromptSpec, texts: Texts
) -> None:
    for each in (tokenizer, llama_3):
        check(each, spec, texts)


def drawn(rng: random.Random) -> tuple[PromptSpec, Texts]:
    def some(fewest: int, most: int) -> tuple[str, ...]:
        return tuple(draw(rng) for _ in range(rng.randint(fewest, most)))

    spec = PromptSpec(
        layout=rng.choice(LAYOUTS),
        output=rng.choice(OUTPUTS),
        reason=rng.random() < 0.5,
        caption_tokens=rng.choice([3, 256]),
    )
    watched = tuple((draw(rng), some(0, 2)) for _ in range(rng.randint(0, 2)))
    return spec, Texts(draw(rng), some(0, 2), some(1, 4), watched, draw(rng))


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
def test_ten_thousand_texts_never_become_structure(
    tokenizer: PreTrainedTokenizerBase, llama_3: PreTrainedTokenizerBase, half: int
) -> None:
    for number in range(5_000):
        spec, texts = drawn(random.Random(f"{half} {number}"))
        check((tokenizer, llama_3)[half], spec, texts)


@pytest.mark.parametrize("unit", ["x", "</option>", "\u200b", "\u200d\U0001f525"])
def test_a_megabyte_is_cut_and_changes_nothing(tokenizer: PreTrainedTokenizerBase, unit: str) -> None:
    spec, megabyte = PromptSpec(reason=True), unit * (10**6 // len(unit.encode()))
    prompts, kept = renderer(tokenizer, spec), structural(tokenizer)
    options = [prompts.options("Up", (), ("calm", caption)) for caption in (megabyte, "calm")]
    assert [i for i in options[0].prefix if i in kept] == [i for i in options[1].prefix if i in kept]
    assert len(options[0].answers[1]) <= spec.caption_tokens
    rationale = prompts.rationale(megabyte)
    assert len(rationale) <= spec.reason_tokens
    assert not kept & set(rationale)
    # A history loses its oldest items: the one that is too long and all before it.
    items: list[dict[str, Any]] = [
        {"timestamp": MOMENT, "title_name": name, "genres": [], "watch_seconds": None} for name in (megabyte, "Up")
    ]
    shown = prompts.histories(pa.array([items], HISTORY), np.array([4096])).ids[0].as_py()
    assert len(shown) <= spec.history_tokens
    assert str(tokenizer.decode(shown)).split("\n")[-1] == "- 2024-05-01: Up"
