"""Calls in a process of its own: their results, and each limit."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from artsel_ray.limited_process import LimitError, call


def test_result_is_what_the_function_returns() -> None:
    assert call("json:loads", 5, '{"é": [1, null]}') == {"é": [1, None]}
    assert call("os:getpid", 5) != os.getpid()


@pytest.mark.parametrize(
    ("function", "argument", "problem"),
    [
        ("json:loads", "{", "fails: Expecting property name"),
        ("builtins:exec", "while True: pass", "takes more than 1 seconds"),
        ("builtins:exec", "9 ** 9 ** 9 ** 9", "takes more than "),
        ("builtins:exec", "x = bytearray(1 << 36)", "takes more than (1,024 MiB|1 seconds)"),
        ("builtins:exec", "raise BaseException('panic  of Rust')", "fails: panic of Rust"),
        ("os:_exit", 3, "ends its process"),
    ],
)
def test_call_that_fails_or_does_not_end_says_why(function: str, argument: object, problem: str) -> None:
    started = time.monotonic()
    with pytest.raises(LimitError, match=f"^{problem}"):
        call(function, 1, argument)
    assert time.monotonic() - started < 60


def test_what_the_function_prints_is_no_result() -> None:
    assert call("builtins:print", 5, "x") is None
    assert call("os:system", 5, "echo x") == 0


def test_working_folder_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert call("json:loads", 5, "1") == json.loads("1")
