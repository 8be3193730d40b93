"""Fixtures shared by all tests: one Ray and one small model for the whole session, each made when first asked for."""

from collections.abc import Iterator

import pytest

from artsel_ray.models.load import SMOLLM2, Model, load


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of two CPUs."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """The bundled model, converted in the cache."""
    return load(SMOLLM2)
