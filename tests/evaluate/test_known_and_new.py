from pathlib import Path

import numpy as np

from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import read_examples
from artsel_ray.evaluate.known_and_new import evaluate_titles
from artsel_ray.evaluate.policies import policies_of
from artsel_ray.evaluation.policies import EstimateSettings


def test_policies_are_evaluated_on_each_kind_of_titles(small: Path) -> None:
    table = read_examples(str(small / "examples/test"))
    choices = {"model": read_choices(str(small / "predictions"), table)}
    policies, missing_n = policies_of(table, choices, None), choices["model"].missing_n
    # The first user's choices of both titles are hits, the second one's are not.
    is_new_n = np.array([table.titles[title].as_py() == "t2" for title in table.title_n])
    found = evaluate_titles(table, policies, is_new_n, missing_n, EstimateSettings(200, 0))
    assert list(found) == ["known", "new"]
    assert [(kind.examples, kind.users, kind.titles) for kind in found.values()] == [(2, 2, 1), (2, 2, 1)]
    assert sum(kind.missing for kind in found.values()) == missing_n.sum() == 1
    for kind, size in zip(found.values(), (2, 4), strict=True):
        metrics = kind.results.policies["model"].metrics
        assert (metrics["accuracy"].value, metrics["accuracy"].low, metrics["accuracy"].high) == (0.5, 0, 1)
        assert metrics["ips"].value == size / 2
        assert kind.results.policies["random"].metrics["accuracy"].value == 1 / size
        assert kind.results.difference["random"]["accuracy"].value == 0.5 - 1 / size


def test_without_new_titles_there_is_nothing_to_tell_apart(small: Path) -> None:
    table = read_examples(str(small / "examples/test"))
    policies = policies_of(table, {"model": read_choices(str(small / "predictions"), table)}, None)
    nothing_n = np.zeros(4, dtype=bool)
    assert evaluate_titles(table, policies, nothing_n, nothing_n, EstimateSettings(20, 0)) == {}
    assert list(evaluate_titles(table, policies, ~nothing_n, nothing_n, EstimateSettings(20, 0))) == ["new"]
