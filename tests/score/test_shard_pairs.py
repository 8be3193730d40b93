"""Reuse of an earlier run's predictions: only of what this run could have made, with the model's own choice."""

import datetime
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS
from artsel_ray.data.catalog import read_catalog
from artsel_ray.models.load import Model
from artsel_ray.prompts.tokenizer import Options
from artsel_ray.runtime.fingerprint_key import with_key
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score import shard_pairs
from artsel_ray.score.assignment import assign_titles, count_titles
from artsel_ray.score.rendering import PromptGroup, render_shard
from artsel_ray.score.requests import shuffle_previous, shuffle_requests
from artsel_ray.score.shard_pairs import ShardSource
from tests.score.test_rendering import ANSWER_SPEC, Render, files


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
    found = shard_pairs._undrawn(drawn, [PromptGroup("t", ["a", "b", "c"], users=2, options=options)] * 2).to_pylist()
    # Of the first, a and b read the same and share .6; the second was not drawn.
    assert [(each["artwork_id"], each["probability"], each["propensity"]) for each in found] == [
        ("a", 0.3, None), ("c", 0.4, None),
    ]  # fmt: skip


def test_reused_prediction_is_found_under_the_earlier_key_and_gets_the_runs_own(
    world: Path, smollm2: Model, render: Render
) -> None:
    plain = render(world, ANSWER_SPEC)
    catalog, _ = read_catalog(files(world, "titles"), files(world, "artworks"))
    asked, work = files(world, "requests"), str(world / "spill")
    assignment = assign_titles(sum((count_titles(file) for file in asked), Counter()), 1000, {})
    uris, now = storage.find_files(work, ".arrow"), datetime.datetime.now(datetime.UTC)
    for earlier, own in ((b"", b"1" * 32), (b"1" * 32, b"1" * 32), (b"1" * 32, b"2" * 32), (b"1" * 32, b"")):
        row = {"user_id": "u00", "title_id": "t1", "artwork_id": "t1-0", "model_id": "m", "scored_at": now}
        row |= {"fingerprint": with_key(plain.fingerprints, earlier)[0]}
        storage.write_table(f"{world}/P/a.parquet", pa.Table.from_pylist([row], PREDICTIONS), "predictions")
        shuffle_previous([f"{world}/P/a.parquet"], f"{work}/p", assignment, f"{work}/r.parquet", DEFAULT_LIMITS)
        for known, reused in ((earlier, 1), (b"3" * 32, 0)):
            source = ShardSource(uris, [f"{work}/p"], asked, catalog, key=own, previous_key=known)
            shard = render_shard(0, source, ANSWER_SPEC)
            assert shard.fingerprints == with_key(plain.fingerprints, own)[reused:]
            assert shard.reused["fingerprint"].to_pylist() == with_key(plain.fingerprints, own)[:reused]
            assert "1111" not in repr(source)
