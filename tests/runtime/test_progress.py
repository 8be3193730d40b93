import pytest

from artsel_ray.runtime import progress as progress_module
from artsel_ray.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list whose one number is the time."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    return now


def test_last_shard_is_always_printed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(2, "pairs")
    clock[0] += 1
    progress.add({"pairs": 10, "rejected": 1})
    assert capsys.readouterr().out == ""
    clock[0] += 1
    progress.add({"pairs": 30, "rejected": 2})
    assert capsys.readouterr().out == "2/2 shards, 40 pairs, 30.0 pairs/s, 0 s left\n"
    assert progress.invalid == 3


def test_engine_restarts_are_counted(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(2, "pairs")
    for _ in range(2):
        clock[0] += 1
        progress.add({"pairs": 10, "rejected": 0, "engine_restarts": 1})
    assert capsys.readouterr().out.endswith(" s left, 2 engine restart(s)\n")


def test_lines_are_some_seconds_apart(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(100, "pairs")
    for _ in range(20):
        clock[0] += 1
        progress.add({"pairs": 10, "rejected": 0})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["6/100", "12/100", "18/100"]


def test_the_time_that_engines_take_to_start_predicts_nothing(clock: list[float]) -> None:
    progress = Progress(11, "pairs")
    clock[0] += 600  # engines start, then the first shard
    progress.add({"pairs": 10, "rejected": 0})
    clock[0] += 2
    progress.add({"pairs": 10, "rejected": 0})
    # 9 shards of 10 pairs are left, at 10 pairs in 2 s.
    assert progress.seconds_left == pytest.approx(18)
