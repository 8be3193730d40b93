"""What post-training is for: a model that knew nothing has learned who likes what."""

from pathlib import Path

import pytest

from benchmarks.learning import Benchmark, main


@pytest.mark.slow
def test_a_tiny_llama_learns_most_of_what_there_is_to_learn(tmp_path: Path, ray_cluster: None) -> None:
    assert main(Benchmark(tmp_path)) >= 0.8
