from pathlib import Path

import pytest

from artsel_ray.models.cache import cached


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path))


def test_folder_is_made_once() -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "a").write_text("content")

    assert cached("kind/key", make) == cached("kind/key", make)
    assert len(made) == 1
    assert (cached("kind/key", make) / "a").read_text() == "content"


def test_failure_leaves_no_partial_folder() -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("key", fail)
    folder = cached("key", lambda folder: None)
    assert not list(folder.iterdir())
    assert sorted(path.name for path in folder.parent.iterdir()) == ["key", "key.lock"]
