import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from artsel_ray.engines.base import Sampling, UsageCounter, refusals
from artsel_ray.engines.fake import FakeEngine
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Ids
from artsel_ray.runtime.engine_pool import EngineActor, EngineStage, Item
from artsel_ray.runtime.starts import Starts
from artsel_ray.runtime.task_result import unwrap, wrap
from artsel_ray.schema import INVALID_ROWS, PREDICTIONS
from artsel_ray.score import scoring
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.rendering import PromptGroup, RenderedShard, prompt_tokenizer
from artsel_ray.score.scoring import EngineLoader, make_scorer, score_shard
from artsel_ray.score.settings import ScoreEngines

Render = Callable[[Path, AnswerSpec], RenderedShard]
CAPTIONS = ["A red tower.", "Two friends laugh by the sea.", "Two friends fight."]
ANSWER_SPEC = AnswerSpec("smollm2", "smollm2@x", PromptSpec(), 8192, "rank")
LOADER = EngineLoader(
    AnswerSpec("smollm2", "smollm2@x", PromptSpec(), 2048, "choose"), ScoreEngines(engine="fake"), 4, None
)


class Scripted:
    """Prefers the largest allowed id or answers with given numbers; generates given texts."""

    def __init__(self, texts: Sequence[list[int]] = (), answers: Sequence[float] = ()) -> None:
        self.texts, self.answers = list(texts), list(answers)
        self.prompts: list[Ids] = []
        self.usage = UsageCounter()

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Any = ()) -> list[np.ndarray]:
        self.prompts += prompts
        return [np.array(self.answers[: len(ids)] or np.array(ids, dtype=float) / 1000) for ids in allowed]

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Any = (),
    ) -> list[list[int]]:
        return [self.texts.pop(0)[:max_tokens] for _ in prompts]


def shard(answer_spec: AnswerSpec) -> RenderedShard:
    options = prompt_tokenizer(answer_spec.model, answer_spec.spec).options("Up", ["Comedy"], CAPTIONS)
    groups = [PromptGroup("t1", ["a", "b", "c"], 2, options), PromptGroup("t2", ["d", "e", "f"], 1, options)]
    histories = pa.array([[11], [12, 13], [14]], pa.list_(pa.int32()))
    users = pa.chunked_array([["u1", "u2", "u3"]])
    files = pa.array(["a.parquet"] * 3).dictionary_encode()
    sources = {"user_id": users, "title_id": ["t1", "t1", "t2"], "row": [0, 1, 2], "row_share": [1.0, 0.5, 1.0]}
    return RenderedShard(
        groups, ["f1", "f2", "f3"], PREDICTIONS.empty_table(), INVALID_ROWS.empty_table(), {},
        pa.table({**sources, "file": files}), histories, None, pa.array(["Heat", "Up"]),
    )  # fmt: skip


def test_label_prior_is_divided_out_of_every_distribution(smollm2: Model) -> None:
    answer_spec = replace(ANSWER_SPEC, decoding="labels", spec=PromptSpec(output="number"))
    plain, _ = score_shard(shard(answer_spec), Scripted(), answer_spec)
    prior = (0.5, 1.0, 4.0)
    divided, _ = score_shard(shard(answer_spec), Scripted(), replace(answer_spec, label_prior=prior))
    for before, after in zip(plain.to_pylist(), divided.to_pylist(), strict=True):
        expected = np.array([each["probability"] for each in before["candidates"]]) / prior
        assert [each["probability"] for each in after["candidates"]] == pytest.approx(expected / expected.sum())
    # The engine slightly prefers larger ids; without its preference for the third number, the first is best.
    assert {row["artwork_id"] for row in plain.to_pylist()} == {"c", "f"}
    assert {row["artwork_id"] for row in divided.to_pylist()} == {"a", "d"}


def test_rows_keep_the_order_of_the_groups(smollm2: Model) -> None:
    engine = Scripted()
    table, counts = score_shard(shard(ANSWER_SPEC), engine, ANSWER_SPEC)
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
    prefix = shard(ANSWER_SPEC).groups[0].options.prefix
    assert engine.prompts[0].tolist() == tokenizer.prompt(prefix, [11]).tolist()


def test_free_text_without_a_match_is_counted(smollm2: Model) -> None:
    answer_spec = replace(ANSWER_SPEC, decoding="freetext")
    tokenizer = prompt_tokenizer("smollm2", PromptSpec())
    engine = Scripted(tokenizer.encode([" friends by the sea", " 42", ""]))
    table, counts = score_shard(shard(answer_spec), engine, answer_spec)
    assert table["artwork_id"].to_pylist() == ["b", "a", "d"]
    assert table["probability"].null_count == 3
    assert counts == {"unmatched": 2}


def test_rationale_is_kept_and_precedes_the_prediction(smollm2: Model) -> None:
    answer_spec = replace(ANSWER_SPEC, decoding="choose", spec=PromptSpec(reason=True))
    tokenizer = prompt_tokenizer("smollm2", answer_spec.spec)
    texts = tokenizer.encode([" They like the sea.\nPrediction: ", " Towers <option>", ""])
    engine = Scripted(texts)
    table, counts = score_shard(shard(answer_spec), engine, answer_spec)
    assert table["rationale"].to_pylist() == ["They like the sea.", "Towers <option>", ""]
    assert counts == {
        "unmatched": 0, "reasons": 3, "reasons_of_other_histories": 0, "reasons_of_other_candidates": 0,
    }  # fmt: skip
    decoded = str(tokenizer.tokenizer.decode(engine.prompts[0]))
    assert decoded.endswith("Reason: They like the sea.\nPrediction: <option>")
    # What the model wrote is data too: it cannot open an option.
    assert "Towers ‹option›\nPrediction: <option>" in str(tokenizer.tokenizer.decode(engine.prompts[1]))


def test_rationale_about_another_users_title_or_another_candidate_is_dropped(smollm2: Model) -> None:
    answer_spec = replace(ANSWER_SPEC, decoding="choose", spec=PromptSpec(reason=True))
    tokenizer = prompt_tokenizer("smollm2", answer_spec.spec)
    texts = [" They also liked Heat.", " Up suits them.", " Better than two friends laugh by the sea."]
    table, counts = score_shard(shard(answer_spec), Scripted(tokenizer.encode(texts)), answer_spec)
    chosen = table["artwork_id"].to_pylist()
    assert table["rationale"].to_pylist() == [None, "Up suits them.", None if chosen[2] != "e" else texts[2].strip()]
    assert counts["reasons_of_other_histories"] == 1
    assert counts["reasons"] + counts["reasons_of_other_candidates"] == 2


@pytest.mark.parametrize("decoding", ["choose", "rank", "freetext", "labels"])
def test_answer_does_not_depend_on_what_else_is_in_its_shard(
    world: Path, smollm2: Model, render: Render, write_requests: Callable[..., None], history: Any, decoding: str
) -> None:
    settings = replace(
        ANSWER_SPEC, decoding=decoding, spec=PromptSpec(output="number" if decoding == "labels" else "text")
    )
    for file in (world / "requests").iterdir():
        file.unlink()
    found = []
    for index, title_ids in enumerate((["t3"], ["t3", "t1", "t2"])):
        rows = [(f"u{number:02}", history(number), title_ids) for number in range(12)]
        write_requests(str(world / "requests/part-0.parquet"), rows)
        if index:
            write_requests(str(world / "requests/part-1.parquet"), [("other", history(30), ["t3", "t1"])])
        table, _ = score_shard(render(world, settings), FakeEngine(), settings)
        kept = [
            row
            for row in table.drop(["scored_at"]).to_pylist()
            if row["title_id"] == "t3" and row["user_id"] != "other"
        ]
        found.append(sorted(kept, key=lambda row: row["user_id"]))
    assert len(found[0]) == 12
    assert found[0] == found[1]


def test_scorer_adds_reused_predictions_and_their_counts(smollm2: Model) -> None:
    fresh, _ = score_shard(shard(ANSWER_SPEC), Scripted(), ANSWER_SPEC)
    rendered = replace(shard(ANSWER_SPEC), reused=fresh.slice(1, 1), counts={"pairs": 4, "reused": 1})
    processed = make_scorer(ANSWER_SPEC)(rendered, Scripted)
    assert processed.rows["user_id"].to_pylist() == ["u1", "u2", "u3", "u2"]
    assert processed.invalid is rendered.invalid
    assert processed.counts == {"pairs": 4, "reused": 1, "unmatched": 0}


def test_shard_with_a_prompt_that_the_engine_refuses_is_rejected_with_its_rows(smollm2: Model) -> None:
    class Refusing(Scripted):
        def logprobs(self, *_: Any, **__: Any) -> list[np.ndarray]:
            with refusals():
                raise ValueError("private words of a prompt")

    fresh, _ = score_shard(shard(ANSWER_SPEC), Scripted(), ANSWER_SPEC)
    counts = {"pairs": 4, "rejected": 1, "rejected_rows": 0.5, "reused": 1}
    rendered = replace(shard(ANSWER_SPEC), reused=fresh.slice(1, 1), counts=counts)
    processed = make_scorer(ANSWER_SPEC)(rendered, Refusing)
    assert processed.rows["user_id"].to_pylist() == ["u2"]
    keys = ("file", "row", "user_id", "title_id", "reason")
    reason = "the engine refuses a prompt of its shard (ValueError)"
    assert [tuple(row[key] for key in keys) for row in processed.invalid.to_pylist()] == [
        ("a.parquet", 0, "u1", "t1", reason), ("a.parquet", 1, "u2", "t1", reason), ("a.parquet", 2, "u3", "t2", reason)
    ]  # fmt: skip
    expected = {"pairs": 1, "rejected": 4, "rejected_rows": 3.0, "reused": 1, "unmatched": 0}
    assert processed.counts == expected


def test_error_of_our_own_is_no_refusal_of_the_engine(smollm2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("zip() argument 2 is shorter than argument 1")

    monkeypatch.setattr(scoring, "predictions", broken)
    with pytest.raises(ValueError, match="is shorter"):
        make_scorer(ANSWER_SPEC)(shard(ANSWER_SPEC), Scripted)


def test_empty_shard_is_an_empty_table(smollm2: Model) -> None:
    empty = replace(shard(ANSWER_SPEC), groups=[], fingerprints=[])
    empty = replace(empty, sources=empty.sources.slice(0, 0), histories=pa.array([], pa.list_(pa.int32())))
    table, _ = score_shard(empty, Scripted(), ANSWER_SPEC)
    assert table.num_rows == 0


def brute_force(model: Any, prompt: Ids, answers: list[list[int]], end: int) -> np.ndarray:
    """Every candidate's probability, token by token over the whole vocabulary, held to the candidates' sequences."""
    sequences = [[*answer, end] for answer in answers]
    probabilities = []
    for sequence in sequences:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt.tolist(), *sequence]])).logits[0, len(prompt) - 1 : -1]
        probability = 1.0
        for position, token in enumerate(sequence):
            following = sorted({other[position] for other in sequences if other[:position] == sequence[:position]})
            probability *= float(logits[position, following].softmax(0)[following.index(token)])
        probabilities.append(probability / sequences.count(sequence))
    return np.array(probabilities)


@pytest.mark.parametrize("decoding", ["choose", "rank"])
@pytest.mark.parametrize("answers", [[math.nan, 0.0, 0.0], [-math.inf] * 3, [math.inf, 0.0, 0.0]])
def test_engine_that_answers_nan_is_an_input_error(smollm2: Model, decoding: str, answers: list[float]) -> None:
    engine = Scripted(answers=answers)
    answer_spec = replace(ANSWER_SPEC, decoding=decoding)
    with pytest.raises(InputError, match="the model answers with NaN"):
        score_shard(shard(answer_spec), engine, answer_spec)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", [PromptSpec(), PromptSpec(layout="user_first", output="number")], ids=["text", "number"]
)
def test_rank_on_vllm_equals_brute_force(
    world: Path, render: Render, smollm2: Model, vllm_engine: VllmEngine, spec: PromptSpec
) -> None:
    answer_spec = replace(ANSWER_SPEC, spec=spec)
    shard = render(world, answer_spec)
    ranked = score_shard(shard, vllm_engine, answer_spec)[0].to_pylist()
    chosen = score_shard(shard, vllm_engine, replace(answer_spec, decoding="choose"))[0].to_pylist()
    model, tokenizer = adapter.read_model(smollm2.path, torch.float32), prompt_tokenizer("smollm2", spec)
    options = [group.options for group in shard.groups for _ in range(group.users)]
    for n in range(0, len(ranked), 3):
        prompt = tokenizer.prompt(options[n].prefix, shard.histories[n].as_py())
        expected = brute_force(model, prompt, options[n].answers, tokenizer.option_end)
        got = [each["probability"] for each in ranked[n]["candidates"]]
        assert sum(got) == pytest.approx(1)
        np.testing.assert_allclose(got, expected, atol=1e-3)
        index = [each["artwork_id"] for each in ranked[n]["candidates"]].index(chosen[n]["artwork_id"])
        assert chosen[n]["probability"] == pytest.approx(expected[index], abs=1e-3)


def only(shard: RenderedShard, pairs: list[int]) -> RenderedShard:
    """Some of the first group's pairs, in the order given."""
    return replace(
        shard,
        groups=[replace(shard.groups[0], users=len(pairs))],
        sources=shard.sources.take(pa.array(pairs)),
        histories=shard.histories.take(pa.array(pairs)),
        fingerprints=[shard.fingerprints[pair] for pair in pairs],
    )


@pytest.mark.slow
def test_probabilities_on_vllm_do_not_depend_on_batch_order_or_cache(
    world: Path, render: Render, vllm_engine: VllmEngine
) -> None:
    answer_spec = replace(ANSWER_SPEC, decoding="rank")
    shard = render(world, answer_spec)

    def ranked(pairs: list[int]) -> dict[str, list[float]]:
        rows = score_shard(only(shard, pairs), vllm_engine, answer_spec)[0].to_pylist()
        return {row["user_id"]: [each["probability"] for each in row["candidates"]] for row in rows}

    vllm_engine._llm.reset_prefix_cache()
    cold = ranked([0, 1, 2, 3])
    alone: dict[str, list[float]] = {}
    for pair in (3, 1, 2, 0):
        alone |= ranked([pair])
    for other in (ranked([0, 1, 2, 3]), alone):
        for user, probabilities in cold.items():
            np.testing.assert_allclose(other[user], probabilities, atol=1e-4)


@pytest.mark.slow
def test_vllm_generates_free_text_and_rationales(world: Path, render: Render, vllm_engine: VllmEngine) -> None:
    for spec, decoding in ((PromptSpec(), "freetext"), (PromptSpec(reason=True, reason_tokens=12), "choose")):
        answer_spec = replace(ANSWER_SPEC, spec=spec, decoding=decoding)
        vllm_engine.usage.take()
        rows = score_shard(render(world, answer_spec), vllm_engine, answer_spec)[0].to_pylist()
        assert len(rows) == 24
        assert all(row["artwork_id"].startswith(row["title_id"]) for row in rows)
        assert all((row["rationale"] is not None) == spec.reason for row in rows)
        assert vllm_engine.usage.take().decoded_tokens > len(rows)


@pytest.mark.usefixtures("ray_cluster")
def test_loader_travels_to_the_actor(smollm2: Model) -> None:
    assert ray.get(ray.put(LOADER)) == LOADER
    assert isinstance(LOADER(), FakeEngine)


def test_fake_engine_simulates_a_speed(smollm2: Model) -> None:
    engine = replace(LOADER, fake_tokens_per_second=1000.0)()
    engine.logprobs([np.arange(50, dtype=np.int32)], [[1, 2]])
    assert engine.usage.take().seconds >= 0.05


def test_transformers_engine_loads_the_model(smollm2: Model) -> None:
    engine = replace(LOADER, pool=ScoreEngines(engine="transformers"))()
    assert isinstance(engine, TorchEngine)
    (logprobs,) = engine.logprobs([np.array([1, 2, 3], dtype=np.int32)], [[5, 6]])
    assert (logprobs < 0).all()


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("/nowhere", "fake", "the engine does not start: .*/nowhere"),
        # Twice what the model was made for: vLLM refuses when it starts.
        ("smollm2", "vllm", "the engine does not start: .*--max-model-length"),
    ],
)
def test_engine_that_does_not_start_reports_why(
    smollm2: Model, ray_cluster: None, model: str, kind: Any, message: str
) -> None:
    answer_spec = replace(LOADER.answer_spec, model=model, max_model_length=16_384)
    load = replace(LOADER, answer_spec=answer_spec, pool=ScoreEngines(engine=kind))
    stage = EngineStage("score", lambda: lambda shard, get_engine: shard, load)
    actor = EngineActor(stage, Starts.remote(), 4, None, "P")
    with pytest.raises(InputError, match=message):
        raise unwrap(actor(wrap(Item(0, None, {}))))
