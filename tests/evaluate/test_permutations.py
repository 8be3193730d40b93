from pathlib import Path
from typing import Any

import pytest

from artsel_ray.errors import InputError
from artsel_ray.evaluate.example_table import read_examples
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.permutations import read_permuted
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.storage import read_json
from tests.support.evaluation_tables import prediction, write


def run(path: Path, name: str, rows: list[tuple[str, str, str, list[int]]]) -> str:
    """Writes predictions that showed the candidates in these orders."""
    made: list[dict[str, Any]] = []
    for user, title, chosen, order in rows:
        listed = [{"artwork_id": f"{title}-{index}", "probability": 1 / len(order)} for index in order]
        made.append(prediction(user, title, chosen) | {"candidates": listed})
    return write(path / name, "predictions", made)


@pytest.fixture
def runs(small: Path) -> list[str]:
    # Engaged with: t1-0, t2-3, t1-1, t2-0 (write_small); the last pair is not predicted.
    first = [("u1", "t1", "t1-0", [0, 1]), ("u1", "t2", "t2-3", [0, 1, 2, 3]), ("u2", "t1", "t1-0", [0, 1])]
    second = [("u1", "t1", "t1-1", [1, 0]), ("u1", "t2", "t2-3", [3, 2, 1, 0]), ("u2", "t1", "t1-1", [1, 0])]
    return [run(small, "predictions", first), run(small, "other", second)]


def test_positions_are_those_of_the_predictions_lists(small: Path, runs: list[str]) -> None:
    found = read_permuted(runs, read_examples(str(small / "examples/test")))
    assert found.chosen_rn.tolist() == [[0, 3, 0, -1], [0, 0, 0, -1]]
    assert found.truth_rn.tolist() == [[0, 3, 1, -1], [1, 0, 0, -1]]
    assert found.hit_rn.tolist() == [[True, True, False, False], [False, True, True, False]]


def test_evaluation_reports_how_runs_agree(small: Path, runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(
        EvaluateConfig(
            examples=str(small / "examples/test"),
            predictions=runs[0],
            output=str(small / "E"),
            permutations=(runs[1],),
            resamples=50,
        )
    )
    found = read_json(str(small / "E/metrics.json"))["permutations"]
    assert (found["runs"], found["agreement"]["value"]) == (2, pytest.approx(1 / 3))
    # Of two runs over four examples, of which one has no prediction: four hits of eight.
    assert found["accuracy"]["value"] == pytest.approx(4 / 8)
    assert found["by_place"][0]["chosen"]["value"] == pytest.approx(5 / 6)
    assert "2 orders of the candidates: agreement 0.3333" in capsys.readouterr().out
    assert "in 2 orders of the candidates" in (small / "E/report.html").read_text()


def test_the_same_order_twice_is_refused(small: Path, runs: list[str]) -> None:
    with pytest.raises(InputError, match="candidates in the same order as"):
        read_permuted([runs[0], runs[1], runs[0]], read_examples(str(small / "examples/test")))
