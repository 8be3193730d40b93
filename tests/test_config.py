import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from artsel_ray.config import absolute, resolved, run
from artsel_ray.errors import InputError
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.train.settings import SweepConfig

FLAGS = ["job", "--examples", "e", "--predictions", "p", "--output", "o"]


def fails_with(error: BaseException) -> Callable[[], Callable[[EvaluateConfig], None]]:
    def job(config: EvaluateConfig) -> None:
        raise error

    return lambda: job


def test_the_parsed_config_reaches_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EvaluateConfig] = []
    monkeypatch.setattr(sys, "argv", [*FLAGS, "--resamples", "7"])
    run(EvaluateConfig, lambda: seen.append)
    assert (seen[0].output, seen[0].resamples) == (str(Path("o").absolute()), 7)
    assert resolved(seen[0])["resamples"] == 7


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("x.parquet is broken; mend it"), 1, "error: x.parquet is broken; mend it\n"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again\n"),
    ],
)
def test_expected_errors_are_a_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setattr(sys, "argv", FLAGS)
    with pytest.raises(SystemExit) as ended:
        run(EvaluateConfig, fails_with(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == line


def test_a_negative_seed_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [*FLAGS, "--seed", "-1"])
    with pytest.raises(SystemExit, match="1"):
        run(EvaluateConfig, fails_with(ZeroDivisionError()))
    assert capsys.readouterr().err == "error: --seed is negative, expected 0 or more\n"


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", FLAGS)
    with pytest.raises(ZeroDivisionError):
        run(EvaluateConfig, fails_with(ZeroDivisionError()))


def test_local_paths_are_made_absolute_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    config = EvaluateConfig(examples="e", predictions="s3://bucket/p", output="~/o", train="t")
    got = absolute(config)
    assert (got.examples, got.predictions, got.train) == (str(tmp_path / "e"), "s3://bucket/p", str(tmp_path / "t"))
    assert (got.output, got.baseline) == (str(Path("~/o").expanduser()), None)
    models = [
        absolute(SweepConfig(method="sft", examples="e", model=name, output="o")).model
        for name in ("smollm2", "folder", "org/name", "s3://b/T")
    ]
    assert models == ["smollm2", str(tmp_path / "folder"), "org/name", "s3://b/T"]
