"""A small world whose examples, predictions and oracle are written through the project's own schemas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.evaluation_tables import example, prediction, write, write_small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Four examples of two users; see `write_small`."""
    write_small(tmp_path)
    return tmp_path


@pytest.fixture
def write_world() -> Callable[[Path, int, int], None]:
    """Writes a world of random examples, a model that is often right, a baseline and the oracle."""
    return _write_world


def _write_world(path: Path, users: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(4, 41, size=50)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("train", "test", "model", "baseline", "oracle")}
    for user in range(users):
        for title in generator.choice(50, size=6, replace=False):
            m = sizes[title]
            artworks = [f"artwork-{title}-{position}" for position in range(m)]
            shown = 0.8 * np.eye(m)[title % m] + 0.2 / m
            liked = generator.beta(0.4, 2.0, size=m)
            q = shown * liked / (shown * liked).sum()
            label = int(generator.choice(m, p=q))
            row = example(f"user-{user}", f"title-{title}", artworks, label, float(shown[label]))
            ids = (f"user-{user}", f"title-{title}")
            if generator.random() < 0.5:
                tables["train"].append(row)
                continue
            tables["test"].append(row)
            tables["oracle"].append(
                {
                    "user_id": ids[0],
                    "title_id": ids[1],
                    "artwork_ids": artworks,
                    "engagement_probabilities": liked.tolist(),
                    "propensities": shown.tolist(),
                }
            )
            for name, skill in (("model", 0.35), ("baseline", 0.25)):
                choice = artworks[label] if generator.random() < skill else artworks[int(generator.integers(m))]
                if generator.random() > 0.01:
                    tables[name].append(prediction(*ids, choice, float(generator.uniform(0.2, 0.9))))
    write(path / "examples/train", "examples", tables["train"])
    write(path / "examples/test", "examples", tables["test"])
    write(path / "predictions", "predictions", tables["model"])
    write(path / "baseline", "predictions", tables["baseline"])
    write(path / "oracle", "oracle", tables["oracle"])
