import stat
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.runtime.fingerprint_key import FILE, finished_key, in_manifest, run_key, with_key


def finished(output: Path, previous: str | None = None) -> str:
    """Writes the key and manifest of a finished run."""
    run_key(str(output), previous)
    storage.write_manifest(str(output), in_manifest(str(output)))
    return str(output)


def test_each_run_has_a_key_of_its_own_that_only_its_owner_reads(tmp_path: Path) -> None:
    first, second = finished(tmp_path / "P1"), finished(tmp_path / "P2")
    assert len(finished_key(first)) == 32
    assert finished_key(first) == run_key(first, second) != finished_key(second)
    assert stat.S_IMODE((tmp_path / "P1" / FILE).stat().st_mode) == 0o600
    assert storage.find_files(first) == []  # no reader takes it for a table


def test_key_is_on_object_stores_too(bucket: str) -> None:
    output = storage.join(bucket, "keyed")
    key = run_key(output, None)
    assert key == run_key(output, None)
    assert len(key) == 32


def test_a_run_has_the_key_of_the_run_before(tmp_path: Path) -> None:
    first = finished(tmp_path / "P1")
    assert finished_key(finished(tmp_path / "P2", first)) == finished_key(first)


def test_runs_of_versions_without_keys_stay_without(tmp_path: Path) -> None:
    unfinished, complete = tmp_path / "P1", tmp_path / "P2"
    for output in (unfinished, complete):
        storage.write_object(f"{output}/part-000000.parquet", b"")
    storage.write_manifest(str(complete), {"parts": ["part-000000.parquet"]})
    assert [run_key(str(output), None) for output in (unfinished, complete)] == [b"", b""]
    assert finished_key(str(complete)) == b""
    assert in_manifest(str(unfinished)) == {}
    # The next run has a key nevertheless.
    assert len(run_key(str(tmp_path / "P3"), str(complete))) == 32


@pytest.mark.parametrize("content", [{}, [], {"key": 7}, {"key": "x"}, {"key": "00"}, {"key": "00" * 65}])
def test_a_lost_or_damaged_key_is_one_line(tmp_path: Path, content: object) -> None:
    output = finished(tmp_path / "P")
    storage.write_json(f"{output}/{FILE}", content)
    with pytest.raises(InputError, match=f"{FILE} does not hold a key of fingerprints"):
        finished_key(output)
    (tmp_path / "P" / FILE).unlink()
    with pytest.raises(InputError, match=f"has no {FILE}, without which none of its predictions can be reused"):
        finished_key(output)
    storage.write_object(f"{output}/part-000000.parquet", b"")
    with pytest.raises(InputError, match=f"has no {FILE}"):
        run_key(output, None)


def test_fingerprints_cannot_be_guessed_without_the_key() -> None:
    plain = ["47f415fd3656d969d2c47d3721e6f366", "47f415fd3656d969d2c47d3721e6f367"]
    found = [with_key(plain, key) for key in (b"", b"1" * 32, b"2" * 32)]
    assert found[0] == plain
    assert len({each for keyed in found for each in keyed}) == 6
    assert with_key(plain, b"1" * 32) == found[1]
