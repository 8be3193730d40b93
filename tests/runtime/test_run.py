from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import begin, finished_parts, identity_length, refuse_other_jobs


def test_same_run_resumes_and_another_is_refused(tmp_path: Path) -> None:
    begin(str(tmp_path), {"model": "a", "decoding": "rank"}, {"output": "x"})
    begin(str(tmp_path), {"model": "a", "decoding": "rank"}, {"output": "x"})
    assert storage.read_json(str(tmp_path / "config.json"))["config"] == {"output": "x"}
    with pytest.raises(InputError, match="differs in: decoding, model"):
        begin(str(tmp_path), {"model": "b", "decoding": "choose"}, {})
    with pytest.raises(InputError, match="differs in: decoding;"):
        begin(str(tmp_path), {"model": "a"}, {})
    # What an earlier version did not write may be absent there, but not differ.
    new = {"model": "a", "decoding": "rank", "frame": "f"}
    begin(str(tmp_path), new, {}, added=["frame"])
    with pytest.raises(InputError, match="differs in: frame;"):
        begin(str(tmp_path), new, {})
    begin(str(tmp_path / "new"), new, {})
    with pytest.raises(InputError, match="differs in: frame;"):
        begin(str(tmp_path / "new"), new | {"frame": "g"}, {}, added=["frame"])


def test_maximum_length_of_a_short_model_is_the_earlier_default_in_identities() -> None:
    lengths = [(16_384, 2048), (16_384, 8192), (4096, 2048), (16_384, 131_072), (8192, 131_072)]
    assert [identity_length(*each) for each in lengths] == [8192, 8192, 4096, 16_384, 8192]


def test_later_driver_takes_over_and_the_first_one_stops(tmp_path: Path) -> None:
    first = begin(str(tmp_path), {}, {})
    first.check()
    second = begin(str(tmp_path), {}, {})
    with pytest.raises(InputError, match="another job has taken over"):
        first.publish({})
    assert storage.read_manifest(str(tmp_path)) is None
    second.publish({"rows": 1})
    assert storage.read_manifest(str(tmp_path)) == {"rows": 1}


def test_folder_with_other_parquet_files_is_refused(tmp_path: Path) -> None:
    storage.write_object(str(tmp_path / "mine.parquet"), b"")
    with pytest.raises(InputError, match="holds Parquet files"):
        begin(str(tmp_path), {}, {})


def test_output_of_another_job_is_refused(tmp_path: Path) -> None:
    refuse_other_jobs(str(tmp_path), {"resamples"})
    storage.write_json(str(tmp_path / "config.json"), {"resamples": 2, "seed": 0})
    refuse_other_jobs(str(tmp_path), {"resamples"})
    with pytest.raises(InputError, match=r"holds another job's config\.json"):
        refuse_other_jobs(str(tmp_path), {"train_size"})


def test_finished_parts_are_those_of_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no _manifest\.json: that run is not finished"):
        finished_parts(str(tmp_path))
    begin(str(tmp_path), {}, {}).publish({"parts": ["part-000000.parquet"]})
    storage.write_object(str(tmp_path / "part-000009.parquet"), b"of another run")
    assert finished_parts(str(tmp_path)) == [f"{tmp_path}/part-000000.parquet"]
