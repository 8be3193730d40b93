"""Another model's predictions as a prior: by pair, whatever the order of the candidates."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.data.priors import read_prior
from artsel_ray.errors import InputError
from artsel_ray.schema import PREDICTIONS


def prediction(user: str, title: str, candidates: dict[str, float] | None, **changes: Any) -> dict[str, Any]:
    listed = candidates and [{"artwork_id": name, "probability": value} for name, value in candidates.items()]
    row = {"user_id": user, "title_id": title, "artwork_id": "a", "candidates": listed, "model_id": "net@1"}
    return {**row, "fingerprint": "f", "scored_at": datetime.datetime.now(datetime.UTC), **changes}


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    storage.write_table(str(folder / "a.parquet"), pa.Table.from_pylist(rows, PREDICTIONS), "predictions")
    return str(folder)


def test_candidates_are_found_by_their_ids(tmp_path: Path) -> None:
    rows = [prediction("u", "t", {"a": 0.7, "b": 0.2, "c": 0.1}), prediction("v", "t", {"a": 0.5, "b": 0.5})]
    prior = read_prior(write(tmp_path, [*rows, prediction("u", "t", {"a": 1.0}, model_id="net@2")]))
    found = prior.of("u", "t", ["c", "a", "b"])
    assert found is not None
    np.testing.assert_allclose(found, [0.1, 0.7, 0.2])  # the first prediction of a pair counts
    # A candidate that the prior does not know is as likely as the others are on average.
    new = prior.of("v", "t", ["a", "new", "b"])
    assert new is not None
    np.testing.assert_allclose(new, [1 / 3] * 3)
    assert prior.of("w", "t", ["a"]) is prior.of("u", "s", ["a"]) is prior.of("u", "t", ["x"]) is None
    assert prior.model_ids == ["net@1", "net@2"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (prediction("u", "t", None), "1 of 2 predictions without their candidates' probabilities; write them with"),
        (prediction("u", "t", {"a": 1.5}), r"1 invalid rows, the first in .*a\.parquet, row 1, candidates: a probab"),
    ],
)
def test_prior_without_probabilities_is_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_prior(write(tmp_path, [prediction("v", "t", {"a": 1.0}), row]))


def test_unfinished_run_is_no_prior(tmp_path: Path) -> None:
    uri = write(tmp_path, [prediction("u", "t", {"a": 1.0})])
    storage.write_json(f"{uri}/config.json", {"run": {"decoding": "rank"}})
    with pytest.raises(InputError, match="the run has not finished"):
        read_prior(uri)
