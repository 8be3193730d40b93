"""Incomplete checkpoints are recognized by their own lists of files."""

import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from artsel_ray.train.checkpoints import is_complete, newest_complete, seal

LOCAL = pafs.LocalFileSystem()


def checkpoint(folder: Path, workers: int = 2) -> Path:
    """A checkpoint of workers that have written one file each."""
    for rank in range(workers):
        own = folder / f"of-{rank}"
        own.mkdir(parents=True)
        (own / f"state-{rank}.bin").write_bytes(b"12345678")
        seal(own, rank, workers)
        for file in own.iterdir():  # as Ray merges the workers' folders
            file.rename(folder / file.name)
        own.rmdir()
    return folder


def test_checkpoint_is_complete_with_all_lists_and_files(tmp_path: Path) -> None:
    assert is_complete(LOCAL, str(checkpoint(tmp_path / "c")))
    assert not is_complete(LOCAL, str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert not is_complete(LOCAL, str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["state-1.bin", "files-1.json"])
@pytest.mark.parametrize("size", [0, 4, None])
def test_missing_or_cut_file_makes_it_incomplete(name: str, size: int | None, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "c") / name
    if size is None:
        file.unlink()
    else:
        os.truncate(file, size)
    assert not is_complete(LOCAL, str(tmp_path / "c"))


def test_newest_complete_checkpoint_is_taken_and_skipped_ones_are_reported(tmp_path: Path) -> None:
    paths = [str(checkpoint(tmp_path / name)) for name in ("3", "2", "1")]
    lines: list[str] = []
    assert newest_complete(LOCAL, paths, lines.append) == paths[0]
    assert newest_complete(LOCAL, [], lines.append) is None
    assert lines == []
    os.truncate(tmp_path / "3/state-0.bin", 1)
    assert newest_complete(LOCAL, paths, lines.append) == paths[1]
    assert newest_complete(LOCAL, paths[:1], lines.append) is None
    assert lines == [
        "1 incomplete checkpoint(s), skipped for an earlier one",
        "1 incomplete checkpoint(s) and no complete one: training starts from the beginning",
    ]
