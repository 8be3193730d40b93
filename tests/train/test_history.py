"""The end of a training as its history tells it."""

import pytest

from artsel_ray.train.history import final_metrics, nothing_learned


def test_last_value_of_each_metric_is_final() -> None:
    first = {"step": 1, "loss": 0.5, "validation_accuracy": 0.1, "validation_ips": 1.0}
    assert final_metrics([first, {"step": 2, "loss": 0.25}]) == {
        "loss": 0.25,
        "validation_accuracy": 0.1,
        "validation_ips": 1.0,
    }
    logged = {"validation_snips_logged": 0.2, "validation_snips_logged_random": 0.25}
    assert final_metrics([first, {"step": 2, **logged}]).items() >= logged.items()


@pytest.mark.parametrize(
    ("method", "losses", "learned"),
    [
        ("dpo", [0.6931, 0.6932, 0.6930], False),
        ("dpo", [0.6931, 0.66], True),
        ("sft", [0.6931, 0.6930, 0.6929], True),
        ("sft", [2.5, 2.5, 2.5], False),
        ("sft", [2.5], True),
    ],
)
def test_loss_that_does_not_move_is_a_warning(method: str, losses: list[float], learned: bool) -> None:
    history = [{"step": float(step), "loss": loss} for step, loss in enumerate(losses)]
    found = nothing_learned(method, [*history, {"step": 9.0, "validation_ips": 1.0}])
    assert found.startswith("warning: the loss stayed") != learned
    assert bool(found) != learned
