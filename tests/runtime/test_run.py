from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import begin


def test_the_same_run_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    begin(str(tmp_path), {"model": "a", "decoding": "rank"}, {"output": "x"})
    begin(str(tmp_path), {"model": "a", "decoding": "rank"}, {"output": "x"})
    with pytest.raises(InputError, match="differs in: decoding, model"):
        begin(str(tmp_path), {"model": "b", "decoding": "choose"}, {})


def test_one_that_comes_later_takes_over_and_the_first_one_says_so(tmp_path: Path) -> None:
    first = begin(str(tmp_path), {}, {})
    first.check()
    second = begin(str(tmp_path), {}, {})
    with pytest.raises(InputError, match="another job has taken over"):
        first.publish({})
    assert storage.read_manifest(str(tmp_path)) is None
    second.publish({"rows": 1})
    assert storage.read_manifest(str(tmp_path)) == {"rows": 1}


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    storage.write_object(str(tmp_path / "mine.parquet"), b"")
    with pytest.raises(InputError, match="holds Parquet files"):
        begin(str(tmp_path), {}, {})
