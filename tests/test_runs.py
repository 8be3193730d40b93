from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.runs import begin


def test_the_same_run_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    begin(str(tmp_path), {"model": "a", "decoding": "rank"}, {"output": "x"})
    begin(str(tmp_path), {"model": "a", "decoding": "rank"}, {"output": "x"})
    with pytest.raises(InputError, match="differs in: decoding, model"):
        begin(str(tmp_path), {"model": "b", "decoding": "choose"}, {})


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    storage.write_object(str(tmp_path / "mine.parquet"), b"")
    with pytest.raises(InputError, match="holds Parquet files"):
        begin(str(tmp_path), {}, {})
