"""Scoring on top of a prior, and leaving to it the pairs of which it is sure."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.models.prior_weights import PriorWeights, write_prior_weights
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.job import score
from artsel_ray.score.prior import survey
from tests.support.scoring_world import score_config
from tests.support.training import TinyLlama, write_random_adapter

KNOWN, NEW = (0.5, 2.0), (1.5, 0.25)
Distributions = dict[tuple[str, str], dict[str, float]]


def distributions(uri: str) -> Distributions:
    return {
        (row["user_id"], row["title_id"]): {each["artwork_id"]: each["probability"] for each in row["candidates"]}
        for row in read_table(uri, "predictions").to_pylist()
    }


def write_prior(uri: str, of: Distributions) -> str:
    """Writes a prior that is surer with every pair, and does not know the last one."""
    rows = []
    for number, ((user, title), candidates) in enumerate(list(of.items())[:-1]):
        names = sorted(candidates, reverse=True)
        top = 0.4 + 0.5 * number / len(of) if len(names) > 1 else 1.0
        listed = [
            {"artwork_id": name, "probability": (1 - top) / (len(names) - 1) if n else top}
            for n, name in enumerate(names)
        ]
        rows.append(
            {
                "user_id": user, "title_id": title, "artwork_id": names[0], "candidates": listed, "model_id": "net@1",
                "fingerprint": "f", "scored_at": datetime.datetime.now(datetime.UTC),
            }
        )  # fmt: skip
    storage.write_table(f"{uri}/a.parquet", pa.Table.from_pylist(rows, PREDICTIONS), "predictions")
    return uri


@pytest.fixture
def model(tiny_llama: TinyLlama, tmp_path: Path) -> str:
    uri = write_random_adapter(tmp_path / "T", tiny_llama(True))
    write_prior_weights(uri, PriorWeights(KNOWN, NEW, frozenset({"t1"}), ("net@1",)))
    return uri


@pytest.mark.usefixtures("ray_cluster")
def test_both_models_count_by_their_weights_and_a_sure_prior_alone(
    world: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, **flags: Any) -> tuple[Distributions, dict[str, Any]]:
        score(score_config(world, model=model, decoding="rank", output=str(world / name), **flags))
        return distributions(str(world / name)), storage.read_json(f"{world}/{name}/summary.json")

    alone, _ = run("alone")
    assert "was trained on top of a prior, and without --prior it scores alone" in capsys.readouterr().out
    prior = write_prior(str(world / "prior"), alone)
    known = distributions(prior)

    def expected(pair: tuple[str, str]) -> dict[str, float]:
        names = list(alone[pair])
        of_prior = known.get(pair, dict.fromkeys(names, 1 / len(names)))
        weights = KNOWN if pair[1] == "t1" else NEW
        values = np.array([alone[pair][n] ** weights[0] * of_prior[n] ** weights[1] for n in names])
        return dict(zip(names, values / values.sum(), strict=True))

    both, summary = run("both", prior=prior)
    assert both.keys() == alone.keys()
    for pair, found in both.items():
        assert found == pytest.approx(expected(pair), rel=1e-6)
    assert (summary["without_prior"], summary["by_prior"]) == (1, 0)

    # Half of the prior's pairs, the least sure ones, and the one that it does not know are asked.
    half, summary = run("half", prior=prior, llm_share=0.5)
    tops = {pair: max(of.values()) for pair, of in known.items()}
    sure = {pair for pair, top in tops.items() if top > np.quantile(list(tops.values()), 0.5, method="lower")}
    assert summary["by_prior"] == len(sure) < len(known)
    for pair, found in half.items():
        assert found == pytest.approx(known[pair] if pair in sure else expected(pair), rel=1e-6)
    nothing, summary = run("nothing", prior=prior, llm_share=0.0)
    assert summary["by_prior"] == len(known)
    assert all(nothing[pair] == pytest.approx(of) for pair, of in known.items())

    # Fingerprints follow the prior: what it says otherwise is scored again, and nothing else.
    changed = {**known, **dict(list(alone.items())[:1])}
    rows = read_table(prior, "predictions").to_pylist()
    rows[0]["candidates"] = [{"artwork_id": n, "probability": p} for n, p in changed[next(iter(alone))].items()]
    storage.write_table(f"{world}/other/a.parquet", pa.Table.from_pylist(rows, PREDICTIONS), "predictions")
    _, summary = run("again", prior=str(world / "other"), previous=str(world / "both"))
    assert summary["reused"] == len(alone) - 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"decoding": "choose", "prior": "P"}, "--prior needs every candidate's probability; add --decoding rank"),
        ({"llm_share": 0.5}, "--llm-share is 0.5, and without --prior nothing else can choose; add it"),
        ({"llm_share": 0.5, "prior": "P", "estimate_cost": True}, "--estimate-cost is for all pairs"),
    ],
)
def test_flags_that_contradict_each_other(flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        score_config(tmp_path, **{"decoding": "rank", **flags})


def test_model_that_was_trained_without_a_prior_is_refused(world: Path, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    uri = write_random_adapter(tmp_path / "plain", tiny_llama(True))
    with pytest.raises(InputError, match="was trained without --prior, and nothing says how much each counts"):
        score(score_config(world, model=uri, decoding="rank", prior=str(world / "prior")))


@pytest.mark.usefixtures("ray_cluster")
def test_prior_without_probabilities_is_refused(tmp_path: Path) -> None:
    row = {"user_id": "u", "title_id": "t", "artwork_id": "a", "model_id": "m", "fingerprint": "f"}
    table = pa.Table.from_pylist([{**row, "scored_at": datetime.datetime.now(datetime.UTC)}], PREDICTIONS)
    storage.write_table(str(tmp_path / "a.parquet"), table, "predictions")
    with pytest.raises(InputError, match="--prior has predictions without their candidates' probabilities"):
        survey([str(tmp_path / "a.parquet")], DEFAULT_LIMITS)
