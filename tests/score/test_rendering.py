from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.data.images import ArtworkImage
from artsel_ray.models.load import Model
from artsel_ray.models.prior_weights import PriorWeights
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Options
from artsel_ray.score import rendering
from artsel_ray.score.answer_spec import AnswerSpec, PriorSpec
from artsel_ray.score.rendering import PromptGroup, RenderedShard, prompt_tokenizer

Render = Callable[[Path, AnswerSpec], RenderedShard]
ANSWER_SPEC = AnswerSpec("smollm2", "smollm2@x", PromptSpec(), 8192, "choose")
PRIOR = PriorSpec(PriorWeights((1.0, 1.0), (1.0, 1.0), frozenset(), ()))
PIXELS = np.zeros((1, 1, 3), np.uint8)


def test_groups_are_whole_titles_in_order(world: Path, smollm2: Model, render: Render) -> None:
    shard = render(world, ANSWER_SPEC)
    assert [(group.title_id, group.users) for group in shard.groups] == [("t1", 12), ("t2", 6), ("t3", 6)]
    assert shard.groups[0].artwork_ids == ["t1-0", "t1-1", "t1-2"]
    assert shard.sources.num_rows == len(shard.histories) == len(shard.fingerprints) == shard.counts["pairs"] == 24
    tokenizer = prompt_tokenizer("smollm2", PromptSpec())
    # The third user of t1, u02, has two days of history.
    text = tokenizer.tokenizer.decode(tokenizer.prompt(shard.groups[0].options.prefix, shard.histories[2].as_py()))
    assert "New title: Name of t1 (Crime)\nAvailable artworks:\n<option> A red tower.</option>\n<option> Two" in text
    assert text.count("\n- ") == 2


def test_fingerprints_are_equal_only_where_answers_are(world: Path, smollm2: Model, render: Render) -> None:
    shard = render(world, ANSWER_SPEC)
    # Users u00 … u05 and u10 … u15 have the same histories: each fingerprint occurs twice.
    assert set(Counter(shard.fingerprints).values()) == {2}
    assert render(world, ANSWER_SPEC).fingerprints == shard.fingerprints
    for other in (
        replace(ANSWER_SPEC, model_id="other"),
        replace(ANSWER_SPEC, decoding="rank"),
        replace(ANSWER_SPEC, label_prior=(2.0, 0.5)),
        replace(ANSWER_SPEC, spec=PromptSpec(layout="user_first")),
    ):
        assert not set(render(world, other).fingerprints) & set(shard.fingerprints)


def test_everything_that_reaches_the_engine_is_in_the_fingerprint() -> None:
    options = Options(prefix=[1, 2], answers=[[3]], captions_cut=0, length=2)
    groups = [PromptGroup("t1", ["a", "b"], users=1, options=options)]
    histories = pa.array([[4, 5]], pa.list_(pa.int32()))
    changes: list[dict[str, Any]] = [
        {}, {"model_id": "other"}, {"spec": PromptSpec(caption_tokens=9)}, {"max_model_length": 100},
        {"decoding": "rank"}, {"label_prior": (2.0, 0.5)}, {"engine": "transformers"}, {"dtype": "bfloat16"},
        {"frame": "of another day"}, {"prior": PRIOR},
    ]  # fmt: skip
    found = [rendering._fingerprints(groups, histories, [None], replace(ANSWER_SPEC, **each)) for each in changes]
    # Golden: an accidental change would score every pair again.
    assert found[0] == ["47f415fd3656d969d2c47d3721e6f366"]
    assert len({each for (each,) in found}) == len(changes)
    # One list decides both: a run's identity names every one of these settings.
    assert {field.name for field in fields(AnswerSpec)} - {"model", "spec", "model_id", "has_clock"} <= set(
        replace(ANSWER_SPEC, label_prior=(1.0,), prior=PRIOR).identity()
    )
    for other_options in (replace(options, prefix=[1, 3]), replace(options, images=[ArtworkImage(PIXELS, "digest")])):
        groups = [PromptGroup("t1", ["a", "b"], users=1, options=other_options)]
        assert rendering._fingerprints(groups, histories, [None], ANSWER_SPEC) != found[0]


def test_user_first_layout_keeps_users_together(world: Path, smollm2: Model, render: Render) -> None:
    shard = render(world, replace(ANSWER_SPEC, spec=PromptSpec(layout="user_first")))
    users = shard.sources["user_id"].to_pylist()
    assert users == sorted(users)
    assert [group.title_id for group in shard.groups[:4]] == ["t1", "t2", "t1", "t3"]
    assert shard.groups[0].options is shard.groups[2].options
    assert sum(group.users for group in shard.groups) == len(shard.histories) == 24


def test_pairs_that_cannot_be_scored_are_invalid(
    world: Path, smollm2: Model, render: Render, write_requests: Callable[..., None]
) -> None:
    write_requests(
        str(world / "requests/part-2.parquet"), [("u00", [], ["t1", "t4", "t9", ""]), ("v", [], ["t1", "t1"])]
    )
    shard = render(world, ANSWER_SPEC)
    invalid = shard.invalid.select(["file", "row", "column", "reason", "user_id", "title_id"]).to_pylist()
    assert {(row["user_id"], row["title_id"], row["reason"]) for row in invalid} == {
        ("u00", "t1", "the pair was asked for before"),
        ("u00", "t4", "the title has no candidate with a caption"),
        ("u00", "t9", "unknown title"),
        ("u00", "", "unknown title"),
    }
    assert all(row["file"].endswith("part-2.parquet") and row["column"] == "title_ids" for row in invalid)
    assert shard.counts["pairs"] == 25
    # A title that one row asks for twice is one pair; four invalid pairs of a row are one row of the reject rate.
    assert shard.counts["rejected_rows"] == pytest.approx(1.0)


def test_prompts_never_exceed_the_model(world: Path, smollm2: Model, render: Render) -> None:
    tokenizer = prompt_tokenizer("smollm2", PromptSpec())
    whole = render(world, ANSWER_SPEC)
    lengths = [
        tokenizer.fixed_tokens() + len(whole.groups[0].options.prefix) + len(ids) for ids in whole.histories[:12]
    ]
    answer = max(map(len, whole.groups[0].options.answers)) + 2
    limit = max(lengths) + answer - 1
    cut = render(world, replace(ANSWER_SPEC, max_model_length=limit))
    assert cut.counts["histories_cut"] > 0
    for group, start in zip(cut.groups, np.cumsum([0, *[group.users for group in cut.groups]]), strict=False):
        for ids in cut.histories[start : start + group.users]:
            assert len(tokenizer.prompt(group.options.prefix, ids.as_py())) + answer <= limit
    tiny = render(world, replace(ANSWER_SPEC, max_model_length=tokenizer.fixed_tokens()))
    assert (tiny.counts["pairs"], tiny.counts["rejected"]) == (0, 24)
    assert "exceeds" in tiny.invalid["reason"][0].as_py()


def files(world: Path, name: str) -> list[str]:
    return storage.list_files(str(world / name))
