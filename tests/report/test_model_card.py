from pathlib import Path

import pytest

from artsel_ray.report.model_card import add_note, write_card

HISTORY = [{"step": 1.0, "loss": 0.5}, {"step": 2.0, "validation_accuracy": 0.25, "validation_ips": 1.5}]
FLAGS = {
    "method": "sft",
    "model": "org/base",
    "examples": "/secret/place",
    "output": "/here",
    "max_steps": None,
    "seed": 3,
}


@pytest.mark.parametrize("has_adapter", [True, False])
def test_card_shows_metrics_flags_and_what_was_trained(has_adapter: bool, tmp_path: Path) -> None:
    flags = FLAGS | {"lora_rank": 4 if has_adapter else 0}
    write_card(str(tmp_path), flags, {"loss": 0.5, "validation_ips": 1.5}, HISTORY)
    text = (tmp_path / "README.md").read_text()
    assert 'base_model: "org/base"' in text
    assert "| validation ips | 1.5000 |" in text
    assert '"seed": 3' in text
    # What is of one machine, or was not given, tells a reader nothing.
    assert not [word for word in ("/secret/place", "/here", "max_steps") if word in text]
    assert ("`adapter/`" in text, "library_name: peft" in text, "all weights" in text) == (
        (True, True, False) if has_adapter else (False, False, True)
    )
    assert "<svg" in (tmp_path / "loss.svg").read_text()


def test_card_of_examples_with_propensities_leads_with_logged_snips(tmp_path: Path) -> None:
    logged = {"validation_snips_logged": 0.375, "validation_snips_logged_random": 0.25, "validation_ips": 1.5}
    write_card(str(tmp_path), FLAGS | {"lora_rank": 4}, {"loss": 0.5, **logged}, [*HISTORY, {"step": 2.0, **logged}])
    text = (tmp_path / "README.md").read_text()
    assert "propensities is the headline: 0.3750, where a random draw has 0.2500." in text
    assert "rewards repeating a log" in text
    # Matplotlib draws text as glyphs here; the legend's labels are in its comments.
    plot = (tmp_path / "loss.svg").read_text()
    assert "<!-- validation snips logged random -->" in plot
    assert "<!-- validation ips -->" not in plot


def test_note_stands_before_the_plot(tmp_path: Path) -> None:
    write_card(str(tmp_path), FLAGS | {"lora_rank": 4}, {"loss": 0.5, "validation_ips": 1.5}, HISTORY)
    before = (tmp_path / "README.md").read_text()
    add_note(str(tmp_path), "The best of two.")
    text = (tmp_path / "README.md").read_text()
    assert "\n\nThe best of two.\n\n![loss" in text
    assert text.replace("The best of two.\n\n", "") == before
