from pathlib import Path

from artsel_ray import storage
from artsel_ray.runtime import shards as resume
from artsel_ray.schema import INVALID_ROWS, PREDICTIONS


def test_done_shards_are_those_whose_predictions_are_there(tmp_path: Path) -> None:
    assert resume.done(str(tmp_path)) == set()
    metadata = resume.statistics_metadata({"pairs": 3, "score_seconds": 0.5})
    storage.write_table(str(tmp_path / resume.part_name(4)), PREDICTIONS.empty_table(), "predictions", metadata)
    storage.write_table(str(tmp_path / "rejected" / resume.part_name(5)), INVALID_ROWS.empty_table(), "rejected")
    assert resume.done(str(tmp_path)) == {4}
    assert resume.read_statistics(str(tmp_path), 4) == {"pairs": 3, "score_seconds": 0.5}


def test_inputs_are_told_apart(tmp_path: Path) -> None:
    storage.write_object(str(tmp_path / "a.parquet"), b"one")
    before = resume.describe_files(str(tmp_path))
    assert resume.describe_files(str(tmp_path)) == before
    storage.write_object(str(tmp_path / "a.parquet"), b"three")
    assert resume.describe_files(str(tmp_path)) != before
