"""The network's fixtures, for the job that trains it."""

from tests.network.conftest import inputs, vocabulary, world

__all__ = ["inputs", "vocabulary", "world"]
