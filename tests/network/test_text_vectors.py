"""Vectors of texts are computed once, kept without the texts, and found again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray.engines.text_encoder import TextEncoder
from artsel_ray.models.load import load
from artsel_ray.network import text_vectors as module
from artsel_ray.network.text_vectors import NO_VECTORS, TextVectors, text_vectors
from tests.support.training import TinyLlama

TEXTS = pa.array(["", "a red tower", "the sea", "a house"])


def test_texts_without_a_vector_have_zeros() -> None:
    vectors = TextVectors(pa.array(["a", "b"]), np.array([[1, 2], [3, 4]], np.float32))
    assert vectors.of(pa.array(["b", "", "a", "new", "b"])).tolist() == [[3, 4], [0, 0], [1, 2], [0, 0], [3, 4]]
    assert NO_VECTORS.of(pa.array(["a", "b"])).shape == (2, 0)


@pytest.mark.usefixtures("ray_cluster")
def test_each_text_is_computed_once_and_only_its_fingerprint_is_kept(
    tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_PART_TEXTS", 2)
    encoder, kept = tiny_llama(True), str(tmp_path / "vectors")
    vectors = text_vectors(encoder, TEXTS[:3], kept, 1, 0)
    expected = TextEncoder(load(encoder, options=False)).encode(TEXTS.to_pylist())
    np.testing.assert_allclose(vectors.of(TEXTS[:3]), expected[:3], atol=1e-5)
    more = text_vectors(encoder, TEXTS, kept, 2, 0)
    np.testing.assert_allclose(more.of(TEXTS), expected, atol=1e-5)
    assert "computing the vectors of 1 texts" in capsys.readouterr().out
    monkeypatch.setattr(module, "_compute", None)
    again = text_vectors(encoder, TEXTS, kept, 1, 0)
    np.testing.assert_array_equal(again.of(TEXTS), more.of(TEXTS))
    files = [*tmp_path.rglob("*.parquet")]
    assert sum(pq.read_table(file).num_rows for file in files) == 3
    assert not any(b"tower" in file.read_bytes() for file in files)
