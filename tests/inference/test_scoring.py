from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from artsel_ray.decoding.engine import Sampling
from artsel_ray.inference.rendering import RenderedShard, TitleGroup, prompt_tokenizer
from artsel_ray.inference.scoring import score_shard
from artsel_ray.inference.settings import Rendering
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenize import Ids
from artsel_ray.schema import REJECTED

CAPTIONS = ["A red tower.", "Two friends laugh by the sea.", "Two friends fight."]
RENDERING = Rendering("smollm2", "smollm2@x", PromptSpec(), 8192, "rank")


class Scripted:
    """Prefers the largest allowed id; writes what it was told to write."""

    def __init__(self, texts: Sequence[list[int]] = ()) -> None:
        self.texts = list(texts)
        self.prompts: list[Ids] = []

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]]) -> list[np.ndarray]:
        self.prompts += prompts
        return [np.array(ids, dtype=float) / 1000 for ids in allowed]

    def write(
        self, prompts: Sequence[Ids], max_tokens: int, stop: Sequence[int], sampling: Sampling | None = None
    ) -> list[list[int]]:
        return [self.texts.pop(0)[:max_tokens] for _ in prompts]


def shard(rendering: Rendering) -> RenderedShard:
    options = prompt_tokenizer(rendering.model, rendering.spec).options("Up", ["Comedy"], CAPTIONS)
    groups = [TitleGroup("t1", ["a", "b", "c"], options, 2), TitleGroup("t2", ["d", "e", "f"], options, 1)]
    histories = pa.array([[11], [12, 13], [14]], pa.list_(pa.int32()))
    users = pa.chunked_array([["u1", "u2", "u3"]])
    return RenderedShard(0, groups, users, histories, ["f1", "f2", "f3"], REJECTED.empty_table(), {})


def test_rows_keep_the_order_of_the_groups(smollm2: Model) -> None:
    engine = Scripted()
    table, counts = score_shard(shard(RENDERING), engine, RENDERING)
    rows = table.to_pylist()
    assert [(row["user_id"], row["title_id"], row["fingerprint"]) for row in rows] == [
        ("u1", "t1", "f1"), ("u2", "t1", "f2"), ("u3", "t2", "f3"),
    ]  # fmt: skip
    assert [[each["artwork_id"] for each in row["candidates"]] for row in rows] == [
        list("abc"),
        list("abc"),
        list("def"),
    ]
    assert counts == {"unmatched": 0}
    tokenizer = prompt_tokenizer("smollm2", PromptSpec())
    block = shard(RENDERING).groups[0].options.block
    assert engine.prompts[0].tolist() == tokenizer.prompt(block, [11]).tolist()


def test_free_text_is_matched_and_what_matches_nothing_is_counted(smollm2: Model) -> None:
    rendering = replace(RENDERING, decoding="freetext")
    tokenizer = prompt_tokenizer("smollm2", PromptSpec())
    engine = Scripted(tokenizer.encode([" friends by the sea", " 42", ""]))
    table, counts = score_shard(shard(rendering), engine, rendering)
    assert table["artwork_id"].to_pylist() == ["b", "a", "d"]
    assert table["probability"].null_count == 3
    assert counts == {"unmatched": 2}


def test_a_reason_is_kept_and_stands_before_the_prediction(smollm2: Model) -> None:
    rendering = replace(RENDERING, decoding="choose", spec=PromptSpec(reason=True))
    tokenizer = prompt_tokenizer("smollm2", rendering.spec)
    texts = tokenizer.encode([" They like the sea.\nPrediction: ", " Towers <option>", ""])
    engine = Scripted(texts)
    table, _ = score_shard(shard(rendering), engine, rendering)
    assert table["reason"].to_pylist() == ["They like the sea.", "Towers <option>", ""]
    decoded = str(tokenizer.tokenizer.decode(engine.prompts[0]))
    assert decoded.endswith("Reason: They like the sea.\nPrediction: <option>")
    # What the model wrote is data too: it cannot open an option.
    assert "Towers ‹option›\nPrediction: <option>" in str(tokenizer.tokenizer.decode(engine.prompts[1]))


def test_an_empty_shard_is_an_empty_table(smollm2: Model) -> None:
    empty = replace(shard(RENDERING), groups=[], user_ids=pa.chunked_array([[]], pa.string()), fingerprints=[])
    empty = replace(empty, histories=pa.array([], pa.list_(pa.int32())))
    table, _ = score_shard(empty, Scripted(), RENDERING)
    assert table.num_rows == 0
