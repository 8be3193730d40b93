import datetime
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS
from artsel_ray.data.catalog import read_catalog
from artsel_ray.data.images import ArtworkImage
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Options
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score import rendering
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.rendering import RenderedShard, ShardSource, TitleGroup, prompt_tokenizer, render_shard
from artsel_ray.score.requests import assign_titles, count_titles, shuffle_previous, shuffle_requests

Render = Callable[[Path, AnswerSpec], RenderedShard]
ANSWER_SPEC = AnswerSpec("smollm2", "smollm2@x", PromptSpec(), 8192, "choose")
PIXELS = np.zeros((1, 1, 3), np.uint8)


def test_groups_are_whole_titles_in_order(world: Path, smollm2: Model, render: Render) -> None:
    shard = render(world, ANSWER_SPEC)
    assert [(group.title_id, group.users) for group in shard.groups] == [("t1", 12), ("t2", 6), ("t3", 6)]
    assert shard.groups[0].artwork_ids == ["t1-0", "t1-1", "t1-2"]
    assert len(shard.user_ids) == len(shard.histories) == len(shard.fingerprints) == shard.counts["pairs"] == 24
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
    groups = [TitleGroup("t1", ["a", "b"], options, users=1)]
    histories = pa.array([[4, 5]], pa.list_(pa.int32()))
    changes: list[dict[str, Any]] = [
        {}, {"model_id": "other"}, {"spec": PromptSpec(caption_tokens=9)}, {"max_model_length": 100},
        {"decoding": "rank"}, {"label_prior": (2.0, 0.5)}, {"engine": "transformers"}, {"dtype": "bfloat16"},
        {"frame": "of another day"},
    ]  # fmt: skip
    found = [rendering._fingerprints(groups, histories, replace(ANSWER_SPEC, **each)) for each in changes]
    # Golden: an accidental change would score every pair again.
    assert found[0] == ["47f415fd3656d969d2c47d3721e6f366"]
    assert len({each for (each,) in found}) == len(changes)
    # One list decides both: a run's identity names every one of these settings.
    assert {field.name for field in fields(AnswerSpec)} - {"model", "spec", "model_id", "has_clock"} <= set(
        replace(ANSWER_SPEC, label_prior=(1.0,)).identity()
    )
    for other_options in (replace(options, prefix=[1, 3]), replace(options, images=[ArtworkImage(PIXELS, "digest")])):
        groups = [TitleGroup("t1", ["a", "b"], other_options, users=1)]
        assert rendering._fingerprints(groups, histories, ANSWER_SPEC) != found[0]


def test_user_first_layout_keeps_users_together(world: Path, smollm2: Model, render: Render) -> None:
    shard = render(world, replace(ANSWER_SPEC, spec=PromptSpec(layout="user_first")))
    users = shard.user_ids.to_pylist()
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


def test_earlier_prediction_that_this_run_could_not_make_is_not_reused(
    world: Path, smollm2: Model, render: Render
) -> None:
    catalog, _ = read_catalog(files(world, "titles"), files(world, "artworks"))
    asked, work = files(world, "requests"), str(world / "W")
    assignment = assign_titles(sum((count_titles(file) for file in asked), Counter()), 1000, {})
    uris = [uri for i in range(2) for uri in shuffle_requests(asked, range(i, i + 1), assignment, work, work).uris]
    for decoding in ("choose", "rank"):
        answer_spec = replace(ANSWER_SPEC, decoding=decoding)
        first = render(world, answer_spec)
        row: dict[str, Any] = {
            "user_id": "u00",
            "title_id": "t1",
            "artwork_id": "t1-0",
            "fingerprint": first.fingerprints[0],
        }
        ranked = [{"artwork_id": f"t1-{i}", "probability": 1 / 3} for i in range(3)]
        row |= {"candidates": ranked, "model_id": "m", "scored_at": datetime.datetime.now(datetime.UTC)}
        outcomes = []
        changes: list[dict[str, Any]] = [{}, {"artwork_id": "t2-0"}, {"artwork_id": "gone"}, {"candidates": None}]
        for change in changes:
            earlier = pa.Table.from_pylist([row | change], schema=PREDICTIONS)
            storage.write_table(f"{world}/P/a.parquet", earlier, "predictions")
            assert (
                shuffle_previous(
                    [f"{world}/P/a.parquet"], f"{work}/p.arrow", assignment, f"{work}/r.parquet", DEFAULT_LIMITS
                )
                == 0
            )
            shard = render_shard(0, ShardSource(uris, [f"{work}/p.arrow"], asked, catalog), answer_spec)
            outcomes.append((shard.counts["reused"], len(shard.fingerprints)))
        assert outcomes == [(1, 23), (0, 24), (0, 24), (1, 23) if decoding == "choose" else (0, 24)]


def test_reused_prediction_that_was_drawn_has_the_models_choice_again() -> None:
    options = Options(prefix=[1], answers=[[7], [7], [8]], captions_cut=0, length=1)
    listed = [{"artwork_id": name, "probability": value} for name, value in (("a", 0.3), ("b", 0.3), ("c", 0.4))]
    row = {"user_id": "u", "title_id": "t", "artwork_id": "c", "probability": 0.4, "propensity": 0.1}
    row |= {"candidates": listed, "model_id": "m", "fingerprint": "f", "scored_at": datetime.datetime.now(datetime.UTC)}
    drawn = pa.Table.from_pylist([row, row | {"propensity": None}], PREDICTIONS)
    found = rendering._undrawn(drawn, [TitleGroup("t", ["a", "b", "c"], options, users=2)] * 2).to_pylist()
    # Of the first, a and b read the same and share .6; the second was not drawn.
    assert [(each["artwork_id"], each["probability"], each["propensity"]) for each in found] == [
        ("a", 0.3, None), ("c", 0.4, None),
    ]  # fmt: skip


def files(world: Path, name: str) -> list[str]:
    return storage.list_files(str(world / name))
