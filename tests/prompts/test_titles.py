from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from artsel_ray.data.catalog import Catalog
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.titles import tokenize_title


def catalog(contents: list[str]) -> Catalog:
    """Two titles; the second has these candidates."""
    return Catalog(
        title_ids=pa.array(["t1", "t2"]),
        names=pa.array(["Heat", "Up"]),
        genres=pa.array([["Crime"], ["Comedy", "Drama"]]),
        artwork_ids=pa.array([f"a{number}" for number in range(len(contents) + 1)]),
        offsets=np.array([0, 1, len(contents) + 1]),
        contents=pa.array(["A gun.", *contents], pa.large_string()),
        other_ids=pa.array([], pa.string()),
    )


def test_title_is_its_line_and_its_own_candidates(smollm2: Model) -> None:
    tokenizer = prompt_tokenizer(smollm2.path, PromptSpec())
    options = tokenize_title(tokenizer, catalog(["A red house.", "Balloons."]), 1)
    assert options == tokenizer.options("Up", ["Comedy", "Drama"], ["A red house.", "Balloons."])


class ImageTokenizer:
    """The part of a tokenizer for images that titles use."""

    placeholders, spec = "anything but None", PromptSpec(assets="image", output="number")

    def image_options(self, name: str, genres: list[str], images: list) -> tuple:
        return name, genres, [image.pixels.shape for image in images]


def test_images_are_read_and_one_that_is_gone_names_its_title(tmp_path: Path) -> None:
    file = tmp_path / "poster.png"
    Image.new("RGB", (40, 60)).save(file)
    with_image = catalog([str(file)])
    assert tokenize_title(ImageTokenizer(), with_image, 1) == ("Up", ["Comedy", "Drama"], [(60, 40, 3)])  # type: ignore[arg-type]
    gone = catalog([str(tmp_path / "gone.png")])
    with pytest.raises(InputError, match="an image of title t2 was valid when the run started and is not now"):
        tokenize_title(ImageTokenizer(), gone, 1)  # type: ignore[arg-type]
