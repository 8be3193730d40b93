"""Objects that only one writer can make: on a local disk, and on a real S3-compatible server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import conditional_create as exclusive
from artsel_ray import storage
from artsel_ray.errors import InputError
from tests.support.s3_server import READER_KEY, READER_SECRET, uri


def winners(target: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The writers of sixteen that made the object, none of which saw another's before it tried."""
    monkeypatch.setattr(storage, "exists", lambda _: False)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda writer: exclusive.create(target, b"%d" % writer), range(16)))
    return [writer for writer, did in enumerate(made) if did]


def test_of_many_writers_one_makes_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = str(tmp_path / "new/config.json")
    (winner,) = winners(target, monkeypatch)
    assert storage.read_object(target) == b"%d" % winner
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]


def test_an_object_that_is_there_stays(tmp_path: Path) -> None:
    target = str(tmp_path / "config.json")
    assert exclusive.create(target, b"first")
    assert not exclusive.create(target, b"second")
    assert storage.read_object(target) == b"first"


def test_a_disk_without_links_still_gets_its_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", link)
    assert exclusive.create(str(tmp_path / "config.json"), b"first")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


@pytest.mark.slow
def test_of_many_writers_to_s3_one_makes_the_object(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = storage.join(bucket, "new", "config.json")
    (winner,) = winners(target, monkeypatch)
    assert storage.read_object(target) == b"%d" % winner


@pytest.mark.slow
def test_who_may_only_read_is_told_so_in_a_line(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = uri(s3_address, "closed/config.json")
    storage.write_object(target + "", b"{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    with pytest.raises(InputError, match=r"cannot write s3://closed/other.json.*AccessDenied") as caught:
        exclusive.create(target.replace("config", "other"), b"{}")
    assert "\n" not in str(caught.value)
    assert READER_SECRET not in str(caught.value)
