"""All files of a table are read, whatever their names; nothing that a table format or a broken link stands for."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import listing, storage
from artsel_ray.errors import InputError


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"a": [1]}), folder / name)


def listed(folder: Path) -> list[str]:
    return [file.removeprefix(f"{folder}/") for file in storage.list_files(str(folder))]


@pytest.fixture(autouse=True)
def _say_again() -> None:
    listing._report.cache_clear()


def test_parquet_files_by_any_name_are_read_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "part-0.parquet", "000000_0", "sub/x.parq", "PART-1.PARQUET", "2024_q.c000.snappy")
    assert listed(tmp_path) == ["000000_0", "2024_q.c000.snappy", "PART-1.PARQUET", "part-0.parquet", "sub/x.parq"]
    listed(tmp_path)  # says it once
    names = "000000_0, 2024_q.c000.snappy, PART-1.PARQUET, sub/x.parq"
    assert capsys.readouterr() == (f"{tmp_path}: reads {names} too, which is Parquet by its content\n", "")


def test_other_files_are_named_in_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "part-0.parquet")
    for name in ("empty", "rows.csv", *(f"more-{number}.orc" for number in range(5))):
        (tmp_path / name).write_text("" if name == "empty" else "PAR2")
    assert listed(tmp_path) == ["part-0.parquet"]
    names = "empty, more-0.orc, more-1.orc, more-2.orc, more-3.orc and 2 more"
    assert capsys.readouterr() == ("", f"warning: {tmp_path}: left out {names}, which is not Parquet\n")


def test_what_writers_leave_and_images_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "part-0.parquet", "_temporary/0/part-1.parquet", ".hidden/part-2.parquet", "._part-3.parquet")
    put(tmp_path, "rejected/part-4.parquet", "_common_metadata")
    for name in ("_SUCCESS", ".part-0.parquet.crc", "part-0.parquet.crc", "dt=1_$folder$", "images/a.JPG", "b.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    assert listed(tmp_path) == ["part-0.parquet"]
    assert capsys.readouterr() == ("", "")


def test_partitions_may_start_with_an_underscore(tmp_path: Path) -> None:
    put(tmp_path, "_day=1/part-0.parquet", "_day=__HIVE_DEFAULT_PARTITION__/part-0.parquet", "_work/part-0.parquet")
    assert listed(tmp_path) == ["_day=1/part-0.parquet", "_day=__HIVE_DEFAULT_PARTITION__/part-0.parquet"]
    assert storage.find_files(str(tmp_path)) == storage.list_files(str(tmp_path))


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("_delta_log/00000000000000000000.json", "delta"),
        ("dt=1/../_delta_log/00000000000000000010.checkpoint.parquet", "delta"),
        ("metadata/v1.metadata.json", "iceberg"),
        ("db/table/metadata/00000-1b.gz.metadata.json", "iceberg"),
        (".hoodie/hoodie.properties", "hudi"),
    ],
)
def test_table_formats_are_refused_with_the_remedy(tmp_path: Path, mark: str, name: str) -> None:
    table, part = tmp_path / "table", "data/dt=1/part-0.parquet"
    put(table, part, "dt=1/part-0.parquet")
    (table / mark).parent.mkdir(parents=True, exist_ok=True)
    (table / mark).write_text("{}")
    with pytest.raises(InputError, match=rf'is a table of {name.capitalize()}, .* spark\.read\.format\("{name}"\)'):
        storage.list_files(str(table))
    if "db/" not in mark:  # also from inside of it
        for folder in ("dt=1", "data", "data/dt=1"):
            with pytest.raises(InputError, match=f"is a table of {name.capitalize()}"):
                storage.list_files(str(table / folder))


@pytest.mark.parametrize("folder", ["data", "dt=1", "data/dt=1"])
def test_folders_named_like_a_part_of_a_table_are_read(tmp_path: Path, folder: str) -> None:
    put(tmp_path / folder, "part-0.parquet", "metadata/part-1.parquet")
    assert listed(tmp_path / folder) == ["metadata/part-1.parquet", "part-0.parquet"]


@pytest.mark.parametrize("name", ["part-1.parquet", "sub/000000_0"])
def test_link_to_nothing_is_refused_by_name(tmp_path: Path, name: str) -> None:
    put(tmp_path, "part-0.parquet", "sub/part-0.parquet")
    os.symlink("/nowhere/x.parquet", tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is a link to nothing; fetch what it stands for, or remove it"):
        storage.list_files(str(tmp_path))


def test_entry_that_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, "part-0.parquet")
    os.mkfifo(tmp_path / "part-1.parquet")
    with pytest.raises(InputError, match=r"part-1\.parquet is neither a file nor a folder"):
        storage.list_files(str(tmp_path))


def test_links_to_files_and_folders_and_hidden_links_are_fine(tmp_path: Path) -> None:
    put(tmp_path, "real/part-0.parquet")
    (tmp_path / "in").mkdir()
    os.symlink(tmp_path / "real/part-0.parquet", tmp_path / "in/a.parquet")
    os.symlink(tmp_path / "real", tmp_path / "in/folder")
    os.symlink("/nowhere", tmp_path / "in/.#lock")
    assert listed(tmp_path / "in") == ["a.parquet", "folder/part-0.parquet"]
