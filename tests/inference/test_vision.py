from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from artsel_ray.data.images import Pixels, decode
from artsel_ray.inference.engine import VllmEngine
from artsel_ray.inference.vision import TransformersVisionEngine
from artsel_ray.models.load import Model
from artsel_ray.prompts.caption import CaptionPrompts
from tests.inference.tiny_vision import write_tiny_vision

PHOTO = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
TITLES = ["Up", None, "A much longer name of a film than the other two have"]


def pictures() -> list[Pixels]:
    """A real photograph upright, upside down and as a wide strip."""
    photo = decode(PHOTO.read_bytes(), 10**6, 10**6)
    return [photo, photo[::-1].copy(), photo[100:200].copy()]


@pytest.mark.parametrize("kind", ["mllama", "idefics3"])
def test_pictures_asked_about_together_are_described_as_alone(kind: str, smollm2: Model, tmp_path: Path) -> None:
    folder = Path(write_tiny_vision(kind, smollm2.path, tmp_path / kind))
    prompts = CaptionPrompts(AutoProcessor.from_pretrained(folder))
    engine = TransformersVisionEngine(folder, prompts.head)
    asked = [prompts.question(title) for title in TITLES]
    together = engine.write(asked, 6, [2], pictures())
    usage = engine.take_usage()
    assert usage.decoded_tokens == sum(map(len, together)) > 0
    assert usage.prompt_tokens >= sum(map(len, asked))
    alone = [engine.write([ids], 6, [2], [picture])[0] for ids, picture in zip(asked, pictures(), strict=True)]
    assert together == alone
    # What is seen changes what is written.
    blank = np.full((64, 48, 3), 255, dtype=np.uint8)
    assert engine.write(asked[:1], 6, [2], [blank]) != together[:1]


@pytest.mark.slow
def test_vllm_writes_what_transformers_writes(smollm2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    folder = Path(write_tiny_vision("idefics3", smollm2.path, tmp_path / "idefics3"))
    prompts = CaptionPrompts(AutoProcessor.from_pretrained(folder))
    asked = [prompts.question(title) for title in TITLES]
    engine = VllmEngine(folder, 2048, 1, pictures=True)
    written = engine.write(asked, 6, [2], pictures=pictures())
    usage = engine.take_usage()
    assert usage.prompt_tokens > sum(map(len, asked))
    assert written == TransformersVisionEngine(folder, prompts.head).write(asked, 6, [2], pictures())


@pytest.mark.parametrize("kind", ["mllama", "idefics3"])
def test_a_prompt_put_together_of_ids_is_what_the_processor_makes_of_its_text(
    kind: str, smollm2: Model, tmp_path: Path
) -> None:
    folder = Path(write_tiny_vision(kind, smollm2.path, tmp_path / kind))
    processor = AutoProcessor.from_pretrained(folder)
    prompts = CaptionPrompts(processor)
    # Without a name: where it begins and ends a tokenizer of the whole text may join what pieces keep apart.
    asked, picture = prompts.question(None), pictures()[0]
    text = processor.tokenizer.decode(asked)
    whole = processor(text=text, images=[[Image.fromarray(picture)]], add_special_tokens=False, return_tensors="pt")
    made = TransformersVisionEngine(folder, prompts.head)._inputs([asked], [picture], 2)
    assert set(made) == set(whole)
    for name, value in whole.items():
        assert made[name].tolist() == value.tolist(), name
