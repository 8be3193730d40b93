"""What post-training is for: a model with random weights learns who likes what."""

from pathlib import Path

import pytest

from benchmarks.learning import Benchmark, main


@pytest.mark.slow
def test_tiny_llama_learns_most_of_what_can_be_learned(tmp_path: Path, ray_cluster: None) -> None:
    assert main(Benchmark(tmp_path)) >= 0.8
