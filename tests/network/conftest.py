import pytest

from artsel_ray.network.encoding import NetworkInputs, encode
from artsel_ray.network.example_arrays import ExampleArrays, read_example_arrays
from artsel_ray.network.vocabulary import Vocabulary, make_vocabulary
from tests.support.network_examples import genre_fans, write_examples


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExampleArrays]:
    folder = tmp_path_factory.mktemp("world")
    splits = {"train": genre_fans(400, 0), "validation": genre_fans(100, 1), "unseen": genre_fans(100, 2, titles="new")}
    return {name: read_example_arrays(write_examples(folder / name, rows)) for name, rows in splits.items()}


@pytest.fixture(scope="package")
def vocabulary(world: dict[str, ExampleArrays]) -> Vocabulary:
    return make_vocabulary(world["train"])


@pytest.fixture(scope="package")
def inputs(world: dict[str, ExampleArrays], vocabulary: Vocabulary) -> dict[str, NetworkInputs]:
    return {name: encode(rows, vocabulary, train=name == "train") for name, rows in world.items()}
