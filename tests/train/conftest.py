"""The examples that most trainings here learn from."""

from pathlib import Path

import pytest

from tests.support.training import example_row, write_examples


@pytest.fixture
def examples(tmp_path: Path) -> str:
    """data/examples: eight to learn from, four to validate with; who has a longer history likes another artwork."""
    rows = [example_row(1 + number // 4, label=number // 4, example_id=f"e{number}") for number in range(8)]
    write_examples(tmp_path / "examples/train", rows)
    write_examples(tmp_path / "examples/validation", rows[2:6])
    return str(tmp_path / "examples")
