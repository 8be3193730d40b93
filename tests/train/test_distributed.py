"""Two workers with bfloat16 base, autocast and gradient checkpointing, as on two GPUs with DDP or FSDP2."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from artsel_ray.engines.torch import TorchEngine, load_torch_engine
from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model
from tests.support.training import TinyLlama, write_half_base

ROOT = Path(__file__).parents[2]

PROMPTS, ALLOWED = [np.arange(3, 60, dtype=np.int32)], [[5, 6, 7, 8]]


Flags = dict[str, Any]


def run_on_two_workers(trainings: list[Flags], port: int) -> list[list[dict[str, float]]]:
    """Runs trainings one after another on two processes with gloo, and returns what each one logged.

    Each one also went on from its checkpoint of step 3, in the middle of its second epoch, and learned the same.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    command += ["-m", "tests.support.gpu_training", json.dumps(trainings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-9000:]
    results = [json.loads(Path(flags["output"], "history.json").read_text()) for flags in trainings]
    for flags, result in zip(trainings, results, strict=True):
        assert result["error"] == ""
        assert result["is_sharded"] == flags.get("fsdp", False)
        assert losses_of(result["resumed"]) == pytest.approx(losses_of(result["history"]), abs=1e-3)
    return [result["history"] for result in results]


@pytest.fixture
def base(tiny_llama: TinyLlama, tmp_path: Path) -> str:
    return write_half_base(tmp_path / "base", tiny_llama(True))


@pytest.fixture
def shared(examples: str) -> Flags:
    """Flags of a training that takes a second."""
    return {
        "examples": examples, "workers": 2, "learning_rate": 1e-2, "max_steps": 5, "batch_size": 4,
        "micro_batch": 2, "checkpoint_steps": 3, "validation_size": 4, "lora_rank": 4, "output_format": "number",
    }  # fmt: skip


def losses_of(history: list[dict[str, float]]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def logprobs_of(output: str, base: str) -> Any:
    """Returns what an exported adapter answers, read by plain PEFT."""
    trained: Any = PeftModel.from_pretrained(read_model(load(base).base, torch.bfloat16), f"{output}/adapter")
    return TorchEngine(trained).logprobs(PROMPTS, ALLOWED)


@pytest.mark.slow
def test_two_workers_learn_in_bfloat16_and_export_what_they_learned(shared: Flags, base: str, tmp_path: Path) -> None:
    sft = {**shared, "method": "sft", "model": base, "output": str(tmp_path / "sft")}
    dpo = {**shared, "method": "dpo", "model": sft["output"], "output": str(tmp_path / "dpo")}
    choice = {
        **shared,
        "method": "choice",
        "model": base,
        "output": str(tmp_path / "choice"),
        "shuffle_candidates": True,
    }
    trainings = [sft, dpo, choice]

    for flags, history in zip(trainings, run_on_two_workers(trainings, 29517), strict=True):
        losses = losses_of(history)
        assert losses[-1] < losses[0] - 0.05
        assert [entry["step"] for entry in history if "validation_ips" in entry] == [3, 5]
        if flags is dpo:  # policy and reference, the SFT's adapter, are the same at first
            assert losses[0] == pytest.approx(math.log(2), abs=0.01)
        served = load(flags["output"])
        assert served.has_trained_rows
        expected = logprobs_of(flags["output"], base)
        np.testing.assert_array_equal(load_torch_engine(served, "bfloat16").logprobs(PROMPTS, ALLOWED), expected)


@pytest.mark.slow
def test_two_workers_that_shard_the_model_learn_and_export_what_they_learned(
    shared: Flags, base: str, tmp_path: Path
) -> None:
    shared |= {"fsdp": True}
    sft = {**shared, "method": "sft", "model": base, "output": str(tmp_path / "sft")}
    dpo = {**shared, "method": "dpo", "model": sft["output"], "output": str(tmp_path / "dpo")}
    choice = {**shared, "method": "choice", "model": base, "output": str(tmp_path / "choice")}
    all_weights = {**shared, "lora_rank": 0, "method": "sft", "model": base, "output": str(tmp_path / "all")}
    trainings = [sft, dpo, choice, all_weights]

    for flags, history in zip(trainings, run_on_two_workers(trainings, 29518), strict=True):
        losses = losses_of(history)
        assert losses[-1] < losses[0] - 0.05
        assert [entry["step"] for entry in history if "validation_ips" in entry] == [3, 5]
        if flags is dpo:
            assert losses[0] == pytest.approx(math.log(2), abs=0.01)
        served = load_torch_engine(load(flags["output"]), "bfloat16").logprobs(PROMPTS, ALLOWED)
        before = load_torch_engine(load(base), "bfloat16").logprobs(PROMPTS, ALLOWED)
        assert np.abs(np.subtract(served, before)).max() > 0.1
        if flags is not all_weights:
            np.testing.assert_array_equal(served, logprobs_of(flags["output"], base))
