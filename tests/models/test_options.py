"""The option tokens: the same in a model and in its tokenizer alone, and as tokenizer.json splits texts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from artsel_ray.errors import InputError
from artsel_ray.models.files import SMALL_PATTERNS, model_files
from artsel_ray.models.load import load, load_tokenizer
from artsel_ray.models.options import has_options
from artsel_ray.models.weights import copy_processor, prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from tests.support.tiny_vision import write_tiny_vision

Tiny = Callable[[bool], str]
TEXTS = ["most of all available artworks", " Heat (Action, Crime)", "a\n\nb  c"]


@pytest.fixture
def bare(tiny_llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny tied Llama without option tokens, and a cache of the test's own."""
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_llama(True), tmp_path / "bare"))


@pytest.fixture
def untied(tiny_llama: Tiny, bare: Path, tmp_path: Path) -> Path:
    """One with an output layer of its own."""
    return Path(shutil.copytree(tiny_llama(False), tmp_path / "untied"))


def change(file: Path, **values: Any) -> None:
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.mark.parametrize("name", ["LlamaTokenizerFast", "LlamaTokenizer", "GPT2Tokenizer", "NoSuchTokenizer"])
def test_prompts_are_what_tokenizer_json_says_whatever_class_is_named(bare: Path, tmp_path: Path, name: str) -> None:
    change(bare / "tokenizer_config.json", tokenizer_class=name)
    raw = Tokenizer.from_file(str(bare / "tokenizer.json"))
    expected = [raw.encode(text, add_special_tokens=False).ids for text in TEXTS]
    ready = load(str(bare)).path
    copy_processor(ready, tmp_path / "copy")
    prompts = prompt_tokenizer(ready, PromptSpec())
    assert prompts.encode(TEXTS) == expected
    assert prompts.tokenizer.batch_decode(expected) == TEXTS
    for folder in (ready, tmp_path / "copy"):  # as whoever loads what is exported
        by_class = AutoTokenizer.from_pretrained(folder)
        assert by_class(TEXTS, add_special_tokens=False)["input_ids"] == expected
        assert by_class.batch_decode(expected) == TEXTS


def test_tokenizer_alone_has_the_ids_of_the_model_and_reads_no_weights(bare: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(bare, tmp_path / "alone")
    (alone / "model.safetensors").unlink()
    made = load_tokenizer(str(alone))
    assert not list(made.glob("*.safetensors"))
    full, small = (prompt_tokenizer(path, PromptSpec()) for path in (load(str(bare)).path, made))
    assert (full.head, full.tail, full.end, full.prediction) == (small.head, small.tail, small.end, small.prediction)
    assert load_tokenizer(str(alone), options=False) == alone
    assert load_tokenizer(str(made)) == made
    assert has_options(made)
    assert load_tokenizer(f"file://{alone}").name == made.name
    assert {file.name for file in model_files(made)} <= {file.name for file in model_files(bare, SMALL_PATTERNS)}


def test_model_has_the_same_id_without_a_connection(bare: Path, tmp_path: Path) -> None:
    online = load(str(bare)).base
    offline = shutil.copytree(bare, tmp_path / "offline")
    settings = json.loads((offline / "tokenizer_config.json").read_text())
    (offline / "tokenizer_config.json").write_text(json.dumps({**settings, "local_files_only": True}))
    found = [json.loads((path / "tokenizer_config.json").read_text()) for path in (online, load(str(offline)).base)]
    assert found[0].get("local_files_only", False) is found[1]["local_files_only"] is False


def test_tokens_that_a_model_has_no_rows_for_do_not_make_another_model_each_time(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bare)
    tokenizer.add_tokens([f"<extra{n}>" for n in range(5)])
    tokenizer.save_pretrained(bare)
    ids = []
    for cache in ("a", "b"):
        monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / cache))
        ids.append(load(str(bare)).model_id)
    assert ids[0] == ids[1]


def test_model_whose_generation_config_cannot_be_saved_keeps_its_special_tokens(bare: Path) -> None:
    (bare / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6, "eos_token_id": [1, 0]}))
    saved = json.loads((load(str(bare)).path / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [1, 0]
    assert "temperature" not in saved


def test_end_token_of_the_model_is_the_tokenizers_if_it_names_none(bare: Path, tmp_path: Path) -> None:
    change(bare / "tokenizer_config.json", eos_token=None)
    assert prompt_tokenizer(load(str(bare)).path, PromptSpec()).end[1] == 1
    assert prompt_tokenizer(load_tokenizer(str(bare)), PromptSpec()).end[1] == 1
    change(bare / "config.json", eos_token_id=None)
    change(bare / "generation_config.json", eos_token_id=None)
    with pytest.raises(InputError, match="neither tokenizer nor config names an end token; add eos_token to"):
        load(str(bare))


def test_rows_of_both_sides_are_made_in_families_with_other_names(bare: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, PhiConfig, PhiForCausalLM

    tokenizer = PreTrainedTokenizerFast.from_pretrained(bare)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, n_embd=32, n_layer=1, n_head=2, n_positions=512))
    phi = PhiForCausalLM(
        PhiConfig(**sizes, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    )
    for name, model in (("gpt2", gpt2), ("phi", phi)):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        ready: Any = AutoModelForCausalLM.from_pretrained(load(str(tmp_path / name)).path)
        spelled = tokenizer("<option>", add_special_tokens=False)["input_ids"]
        for side in (ready.get_input_embeddings(), ready.get_output_embeddings()):
            assert (side.weight[len(tokenizer)] - side.weight[spelled].mean(dim=0)).abs().max() < 1e-6


def logits_of(path: Path, tokens: int) -> torch.Tensor:
    """The logits of a model's first tokens by plain transformers."""
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path)(torch.arange(16)[None]).logits[..., :tokens]


def test_head_of_its_own_is_kept_though_the_config_says_that_it_is_tied(untied: Path, tmp_path: Path) -> None:
    tokens = json.loads((untied / "config.json").read_text())["vocab_size"]
    expected = logits_of(untied, tokens)
    change(untied / "config.json", tie_word_embeddings=True)
    made = load(str(untied)).path
    torch.testing.assert_close(logits_of(made, tokens), expected)
    assert json.loads((made / "config.json").read_text())["tie_word_embeddings"] is False
    # One that has the tokens already is left as it is, and vLLM would obey its config.
    ready = Path(shutil.copytree(made, tmp_path / "ready"))
    change(ready / "config.json", tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"embed_tokens.weight and lm_head.weight differ; set tie_word_embeddings"):
        load(str(ready))


def test_same_weights_twice_are_tied(bare: Path, tmp_path: Path) -> None:
    identity = load(str(bare)).model_id
    weights = load_file(bare / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, bare / "model.safetensors", {"format": "pt"})
    model = load(str(bare))
    assert model.model_id == identity
    ready = Path(shutil.copytree(model.path, tmp_path / "ready"))
    weights = load_file(ready / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, ready / "model.safetensors", {"format": "pt"})
    assert load(str(ready)).path == ready


def test_prepared_model_that_answers_differently_is_refused(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resize = LlamaForCausalLM.resize_token_embeddings

    def resize_and_tie(self: Any, *args: Any, **how: Any) -> None:
        resize(self, *args, **how)
        self.lm_head.weight.data = self.model.embed_tokens.weight.data.clone()

    monkeypatch.setattr(LlamaForCausalLM, "resize_token_embeddings", resize_and_tie)
    with pytest.raises(InputError, match=r"with <option> and </option> added, the model answers differently"):
        load(str(untied))


@pytest.mark.parametrize("rename", [lambda key: f"model.{key}", lambda key: key.removeprefix("model.")])
def test_weights_with_the_prefix_twice_or_not_at_all_make_the_same_model(
    untied: Path, rename: Callable[[str], str]
) -> None:
    identity = load(str(untied)).model_id
    weights = load_file(untied / "model.safetensors")
    save_file({rename(key): value for key, value in weights.items()}, untied / "model.safetensors", {"format": "pt"})
    assert load(str(untied)).model_id == identity


def test_model_that_computes_nothing_on_this_machine_is_prepared_with_a_warning(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("this kernel needs a GPU")

    monkeypatch.setattr(LlamaForCausalLM, "forward", fail)
    assert has_options(load(str(bare)).path)
    assert f"warning: {bare} computes nothing here" in capfd.readouterr().err


def test_model_whose_output_layer_has_fewer_rows_is_refused_in_one_line(bare: Path, tmp_path: Path) -> None:
    """As Llama 3.2 Vision."""
    with pytest.raises(InputError, match=r"its embeddings have \d+ rows and its output layer \d+, so that <option>"):
        load(write_tiny_vision("mllama", bare, tmp_path / "mllama"))
