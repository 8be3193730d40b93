"""A tokenizer that fails or never ends is refused before anything is tokenized."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import limited_process
from artsel_ray.errors import InputError
from artsel_ray.models import tokenizer_check
from artsel_ray.models.load import load, load_tokenizer
from artsel_ray.models.tokenizer_check import check_tokenizer

Tiny = Callable[[bool], str]


@pytest.fixture
def folder(tiny_llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Llama, and few seconds for its tokenizer."""
    monkeypatch.setattr(tokenizer_check, "_SECONDS", 2)
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_llama(True), tmp_path / "model"))


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replaced(text: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": by}


HOSTILE = {
    "regex that goes back and forth": {"pre_tokenizer": split(r"(\s*)*x|([a-zA-Z ]+)*\d{99}")},
    "regex of the normalizer": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": "(([a-z ])+.)+[A-Z]Q"}, "content": "x"}
    },
    "text that grows": {"normalizer": replaced("a", "a" * 10**6)},
    "text that doubles": {"normalizer": {"type": "Sequence", "normalizers": [replaced("a", "aa")] * 34}},
    "decoder that grows": {"decoder": replaced("e", "e" * 10**7)},
    "no tokens": {"added_tokens": 5},
    "other tokens": {"added_tokens": ["x"]},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_tokenizer_without_end_is_refused(folder: Path, change: dict[str, Any]) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for read in (load, load_tokenizer):
        with pytest.raises(
            InputError, match=f"^{folder}: the tokenizer of tokenizer.json and the files next to it "
        ) as e:
            read(str(folder))
        assert "\n" not in str(e.value)


def test_many_added_tokens_are_refused(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"extra_special_tokens": [f"t{n}" for n in range(10**5)]})
    )
    with pytest.raises(InputError, match="takes more than 2 seconds"):
        check_tokenizer(folder, "m")


def test_tokenizer_is_tried_once_on_a_machine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(limited_process, "call", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(tokenizer_check, "_tried", set())
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.json").write_text("{}")
    for each in (folder, other):
        check_tokenizer(each, "m")
    tokenizer_check._tried.clear()  # as in another process
    check_tokenizer(folder, "m")
    assert len(calls) == 1
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()  # which no marker can be written to
    check_tokenizer(folder, "m")
    check_tokenizer(folder, "m")
    assert len(calls) == 2
    (folder / "tokenizer.json").unlink()
    check_tokenizer(folder, "m")
