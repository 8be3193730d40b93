"""Two workers with bfloat16 base, autocast and gradient checkpointing, as on two GPUs with DDP: each method."""

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


@pytest.mark.slow
def test_two_workers_learn_in_bfloat16_and_export_what_they_learned(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    base = write_half_base(tmp_path / "base", tiny_llama(True))
    shared = {
        "examples": examples, "workers": 2, "learning_rate": 1e-2, "max_steps": 4, "batch_size": 4,
        "micro_batch": 2, "checkpoint_steps": 2, "validation_size": 4, "lora_rank": 4, "output_format": "number",
    }  # fmt: skip
    sft = {**shared, "method": "sft", "model": base, "output": str(tmp_path / "sft")}
    dpo = {**shared, "method": "dpo", "model": sft["output"], "output": str(tmp_path / "dpo")}
    choice = {
        **shared,
        "method": "choice",
        "model": base,
        "output": str(tmp_path / "choice"),
        "shuffle_candidates": True,
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517"]
    command += ["-m", "tests.support.gpu_training", json.dumps([sft, dpo, choice])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    for flags in (sft, dpo, choice):
        result: Any = json.loads(Path(str(flags["output"]), "history.json").read_text())
        assert result["error"] == ""
        losses = [entry["loss"] for entry in result["history"] if "loss" in entry]
        validated = [entry["step"] for entry in result["history"] if "validation_ips" in entry]
        assert losses[-1] < losses[0] - 0.05
        assert validated == [2, 4]
        if flags is dpo:  # policy and reference, the SFT's adapter, are the same at first
            assert losses[0] == pytest.approx(math.log(2), abs=0.01)
        served, plain = load(str(flags["output"])), read_model(load(base).base, torch.bfloat16)
        assert served.has_trained_rows
        trained: Any = PeftModel.from_pretrained(plain, f"{flags['output']}/adapter")
        prompts, allowed = [np.arange(3, 60, dtype=np.int32)], [[5, 6, 7, 8]]
        expected = TorchEngine(trained).logprobs(prompts, allowed)
        np.testing.assert_array_equal(load_torch_engine(served, "bfloat16").logprobs(prompts, allowed), expected)
