import contextlib
import datetime
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from artsel_ray import schema, storage
from artsel_ray.config import flag, from_flags, resolved
from artsel_ray.data.checked_reader import read_table, row_ranges
from artsel_ray.distill.job import _identity, distill, resolve
from artsel_ray.distill.rationales import MISMATCH
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.runtime.run import begin
from artsel_ray.runtime.shards import INVALID_FOLDER, Shard, Statistics, write_shard
from tests.support.canary import CANARY, logged, tells

ROOT = Path(__file__).parent.parent.parent
WORDS = " sea rain storm dark light calm night tower friends laugh"
EXAMPLES = 24
MOMENT = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
CAPTIONS = [f"A red tower. {CANARY}", f"Two friends laugh by the sea. {CANARY}", f"A lonely house. {CANARY}"]


def example(number: int) -> dict[str, Any]:
    history = [{"timestamp": MOMENT, "title_name": f"Heat {CANARY}", "genres": ["Crime"], "watch_seconds": 60.0}]
    return {
        "example_id": f"e{number}", "user_id": f"u{number}", "title_id": f"t{number % 2}",
        "title_name": f"Up {CANARY}",
        "title_genres": ["Comedy"], "history": history, "label": number % 3, "propensity": 0.5, "timestamp": MOMENT,
        "candidates": [{"artwork_id": f"a{i}", "caption": caption} for i, caption in enumerate(CAPTIONS)],
        "rationale": None, "image_uris": None,
    }  # fmt: skip


def table(numbers: range) -> pa.Table:
    return pa.Table.from_pylist([example(number) for number in numbers], schema=schema.EXAMPLES)


@pytest.fixture
def config(tmp_path: Path) -> DistillConfig:
    """Two dozen examples in two files."""
    storage.write_table(str(tmp_path / "examples/a.parquet"), table(range(7)), "examples")
    storage.write_table(str(tmp_path / "examples/b.parquet"), table(range(7, EXAMPLES)), "examples")
    return from_flags(
        DistillConfig, examples=str(tmp_path / "examples"), teacher="smollm2", output=str(tmp_path / "rationales"),
        shard_examples=2, max_tokens=48, min_words=3, max_model_length=512, temperature=1.0,
    )  # fmt: skip


def changed(config: DistillConfig, **flags: Any) -> DistillConfig:
    return from_flags(DistillConfig, **resolved(config) | flags)


def command(config: DistillConfig) -> list[str]:
    flags = [(flag(name), str(value)) for name, value in resolved(config).items()]
    return [sys.executable, str(ROOT / "jobs/distill.py"), *(word for pair in flags for word in pair)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"temperature": -1.0}, "--temperature is -1.0; it must be at least 0"),
        ({"top_p": 0.0}, "--top-p is 0.0; it must be more than 0"),
        ({"max_tokens": 512}, "--max-tokens 512 leaves no tokens for a prompt"),
        ({"teacher": "no such folder"}, "model 'no such folder' is neither"),
    ],
)
def test_wrong_flags_are_one_line(config: DistillConfig, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(changed(config, **flags))


@pytest.fixture(scope="module")
def tiny_teacher(smollm2: Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of two layers with SmolLM2's tokenizer, which generates some twenty harmless words at random."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=49154, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=2048, initializer_range=0.3,
    )  # fmt: skip
    model, tokenizer = LlamaForCausalLM(settings), AutoTokenizer.from_pretrained(smollm2.path)
    with torch.no_grad():
        # The first hidden dimension is the same everywhere, so that its weights in the head are a bias.
        model.model.embed_tokens.weight[:, 0] = 3.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 1:] *= 0.1
        model.lm_head.weight[:, 0] = -200.0
        model.lm_head.weight[tokenizer(WORDS)["input_ids"], 0] = 0.0
        model.lm_head.weight[tokenizer.eos_token_id, 0] = 0.2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def invalid_rows(output: str) -> list[dict[str, Any]]:
    return read_table(storage.join(output, INVALID_FOLDER), "invalid_rows").to_pylist()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_resume_after_kill_and_every_example_is_kept_or_dropped_with_its_fault(
    config: DistillConfig, tiny_teacher: str, capfd: pytest.CaptureFixture[str]
) -> None:
    complete = changed(config, teacher=tiny_teacher)
    distill(complete)
    printed = capfd.readouterr()
    assert logged() == []
    published = [Path(complete.output, name).read_text() for name in ("config.json", "summary.json", "_manifest.json")]
    assert not any(map(tells, [*printed, *published, str(invalid_rows(complete.output))]))
    kept, dropped = read_table(complete.output, "examples").to_pylist(), invalid_rows(complete.output)
    assert {row["user_id"] for row in kept} | {row["user_id"] for row in dropped} == {f"u{i}" for i in range(EXAMPLES)}
    assert len(kept) + len(dropped) == EXAMPLES
    for row in kept:
        assert set(row["rationale"].split()) <= set(WORDS.split())
        assert row | {"rationale": None} == example(int(row["example_id"][1:]))
    summary = storage.read_json(f"{complete.output}/summary.json")
    assert (summary["examples"], summary["kept"], summary["rejected"]) == (EXAMPLES, len(kept), 0)
    assert {fault: count for fault, count in summary["dropped"].items() if count} == Counter(
        row["reason"] for row in dropped
    )
    assert set(summary["seconds"]["stages"]) == {"prepare", "load", "engine", "explain"}
    assert summary["predicted"] == len(kept) + summary["dropped"][MISMATCH]
    assert min(len(kept), summary["dropped"][MISMATCH]) > 0
    manifest = storage.read_manifest(complete.output)
    assert manifest is not None
    assert [f"{complete.output}/{part}" for part in manifest["parts"]] == storage.list_files(complete.output)

    killed = changed(complete, output=f"{complete.output}-killed")
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen(command(killed), env=environment, start_new_session=True)
    shards = 0
    while shards < 2:
        assert driver.poll() is None, "the run ended before it could be killed"
        with contextlib.suppress(InputError):  # a folder may go away while it is listed
            shards = len(storage.find_files(killed.output))
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert storage.read_manifest(killed.output) is None
    first = Path(killed.output) / "part-000000.parquet"
    written = first.stat().st_mtime_ns
    capfd.readouterr()
    distill(killed)
    assert re.search(rf"{EXAMPLES} examples in 13 shards, [1-9]\d* done", capfd.readouterr().out)
    assert first.stat().st_mtime_ns == written
    assert read_table(killed.output, "examples").to_pylist() == kept
    assert invalid_rows(killed.output) == dropped
    with pytest.raises(InputError, match="holds another run, which differs in: top_p"):
        distill(changed(killed, top_p=0.5))


def test_run_that_keeps_nothing_ends_with_one_line_and_its_summary(config: DistillConfig, smollm2: Model) -> None:
    # Its shards are done: no engine starts. Why answers are dropped is in test_rationales.py.
    begin(config.output, _identity(config, resolve(config)), resolved(config))
    nothing, invalid = table(range(0)), schema.INVALID_ROWS.empty_table()
    shards = row_ranges(storage.list_files(config.examples), "examples", config.shard_examples)
    for index, shard in enumerate(shards):
        counts: Statistics = {"examples": shard.rows, "kept": 0, "rejected": 0, MISMATCH: shard.rows}
        write_shard(config.output, "examples", Shard(index, nothing, invalid, counts))
    with pytest.raises(InputError, match=f"{EXAMPLES} examples, 0 rationales kept, .*{EXAMPLES} dropped: "):
        distill(config)
    assert storage.read_manifest(config.output) is None
    assert storage.read_json(f"{config.output}/summary.json")["kept"] == 0
