from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from artsel_ray.caption.prompts import CaptionPrompts
from artsel_ray.data.images import ArtworkImage, decode
from artsel_ray.decoding import trie
from artsel_ray.engines.torch import load_torch_engine
from artsel_ray.engines.vision import TransformersVisionEngine
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.models.load import Model
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from tests.support.tiny_vision import write_tiny_vision

PHOTO = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
TITLES = ["Up", None, "A much longer name of a film than the other two have"]


def images() -> list[list[ArtworkImage]]:
    """A real photograph upright, upside down and as a wide strip."""
    photo = decode(PHOTO.read_bytes(), 10**6, 10**6)
    return [
        [ArtworkImage(photo, "0")],
        [ArtworkImage(photo[::-1].copy(), "1")],
        [ArtworkImage(photo[100:200].copy(), "2")],
    ]


@pytest.mark.parametrize("kind", ["mllama", "idefics3"])
def test_images_in_a_batch_are_described_as_alone(kind: str, smollm2: Model, tmp_path: Path) -> None:
    folder = Path(write_tiny_vision(kind, smollm2.path, tmp_path / kind))
    prompts = CaptionPrompts(AutoProcessor.from_pretrained(folder))
    engine = TransformersVisionEngine(folder, prompts.head)
    asked = [prompts.question(title) for title in TITLES]
    together = engine.generate(asked, 6, [2], images=images())
    usage = engine.usage.take()
    assert usage.decoded_tokens == sum(map(len, together)) > 0
    assert usage.prompt_tokens >= sum(map(len, asked))
    alone = [engine.generate([ids], 6, [2], images=[image])[0] for ids, image in zip(asked, images(), strict=True)]
    assert together == alone
    # Another image, another text.
    blank = ArtworkImage(np.full((64, 48, 3), 255, dtype=np.uint8), "3")
    assert engine.generate(asked[:1], 6, [2], images=[[blank]]) != together[:1]


@pytest.mark.slow
def test_vllm_generates_what_transformers_does(smollm2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    folder = Path(write_tiny_vision("idefics3", smollm2.path, tmp_path / "idefics3"))
    prompts = CaptionPrompts(AutoProcessor.from_pretrained(folder))
    asked = [prompts.question(title) for title in TITLES]
    engine = VllmEngine(Model(folder, "tiny", None), 2048, 3, images=3)
    written = engine.generate(asked, 6, [2], images=images())
    usage = engine.usage.take()
    assert usage.prompt_tokens > sum(map(len, asked))
    assert written == TransformersVisionEngine(folder, prompts.head).generate(asked, 6, [2], images=images())
    _choose_among_images(engine, folder)


def _choose_among_images(vllm: VllmEngine, folder: Path) -> None:
    """Both engines give the same probabilities, and vLLM's cache distinguishes images."""
    tokenizer = prompt_tokenizer(folder, PromptSpec(assets="image", output="number"))
    shown = [image for (image,) in images()]
    options = [tokenizer.image_options("Up", ["Drama"], order) for order in (shown, shown, shown[::-1])]
    histories = [tokenizer.encode([f"{tokenizer.history_head}\n- {name}"])[0] for name in ("Heat", "Up", "Heat")]
    asked = [tokenizer.prompt(each.prefix, history) for each, history in zip(options, histories, strict=True)]
    tries = [trie.build(each.answers, tokenizer.option_end) for each in options]
    images_n = [each.images for each in options]
    transformers = load_torch_engine(Model(folder, "tiny", None), "auto", tokenizer.placeholders)
    expected = trie.rank(transformers, asked, tries, images_n)
    vllm.usage.take()
    found = [trie.rank(vllm, asked[i : i + 1], tries[i : i + 1], images_n[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert vllm.usage.take().prompt_tokens == transformers.usage.take().prompt_tokens
    # The order of the images changes the choice.
    assert np.abs(expected[0] - expected[2]).max() > 0.01


@pytest.mark.parametrize("kind", ["mllama", "idefics3", "gemma3"])
def test_inputs_are_what_the_processor_makes_of_the_prompts_text(kind: str, smollm2: Model, tmp_path: Path) -> None:
    folder = Path(write_tiny_vision(kind, smollm2.path, tmp_path / kind))
    processor = AutoProcessor.from_pretrained(folder)
    prompts = CaptionPrompts(processor)
    # Without a name: at its ends a tokenizer of the complete text may merge what segments keep apart.
    asked, image = prompts.question(None), images()[0]
    pil_images = [[Image.fromarray(image[0].pixels)]]
    text = processor.tokenizer.decode(asked)
    complete = processor(text=text, images=pil_images, add_special_tokens=False, return_tensors="pt")
    made = TransformersVisionEngine(folder, prompts.head)._inputs([asked], [image], 2)
    assert set(made) == set(complete)
    for name, value in complete.items():
        assert made[name].tolist() == value.tolist(), name
