"""What a model from outside cannot make the loader do, and files that are incomplete or do not fit together."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.exceptions import SecurityError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from artsel_ray.errors import InputError
from artsel_ray.models import checks
from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model

Break = Callable[[Path], object]


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_broken_settings_name_their_file(bare_model: Path, name: str, content: str) -> None:
    (bare_model / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=name):
        load(str(bare_model))


def test_pickled_weights_are_refused(bare_model: Path) -> None:
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="safetensors"):
        load(str(bare_model))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.ran),)


@pytest.mark.parametrize("safetensors", ["none", "beside", "index"])
def test_pickle_in_model_folder_is_never_executed(bare_model: Path, safetensors: str, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "model.pkl", "adapter_model.bin"):
        (bare_model / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    weights = bare_model / "model.safetensors"
    if safetensors == "none":
        weights.unlink()
    elif safetensors == "index":
        weights.rename(bare_model / "model-1.safetensors")
        index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
        (bare_model / "model.safetensors.index.json").write_text(json.dumps(index))
    if safetensors == "beside":
        assert load(str(bare_model)).path.is_dir()
    else:
        with pytest.raises(InputError, match="safetensors"):
            load(str(bare_model))
    assert not (tmp_path / "ran").exists()
    with (bare_model / "model.pkl").open("rb") as file:  # the payload is a real one
        pickle.load(file)  # noqa: S301
    assert (tmp_path / "ran").exists()


def test_index_with_weights_of_another_folder_is_refused(bare_model: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../model.safetensors"}}
    (bare_model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names weights that are no"):
        load(str(bare_model))


def test_chat_template_cannot_leave_its_sandbox(bare_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bare_model)
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SecurityError):
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], chat_template=reach, tokenize=False)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"]
)
def test_code_that_comes_with_a_model_is_refused(bare_model: Path, name: str) -> None:
    config = json.loads((bare_model / name).read_text()) if (bare_model / name).exists() else {}
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (bare_model / name).write_text(json.dumps(config))
    with pytest.raises(InputError, match="code that comes with the model"):
        load(str(bare_model))


def change_config(**changes: Any) -> Break:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    def rewrite(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        change(weights)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def as_pointer(name: str) -> Break:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234567\n"
    return lambda model: (model / name).write_text(text)


def shard(model: Path) -> dict[str, str]:
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(model, max_shard_size="1MB")
    (model / "model.safetensors").unlink()
    return dict(json.loads((model / checks.INDEX).read_text())["weight_map"])


def lose_a_shard(model: Path) -> None:
    (model / sorted(shard(model).values())[0]).unlink()


def index_a_tensor_of_no_shard(model: Path) -> None:
    named = shard(model)
    index = {"weight_map": {**named, "model.layers.0.extra.weight": next(iter(named.values()))}}
    (model / checks.INDEX).write_text(json.dumps(index))


def keep_an_old_index(model: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    shard(model)
    (model / "model.safetensors").write_bytes(whole)


def rename_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "a.safetensors")


def as_gguf(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model.Q4_K_M.gguf")


BROKEN: dict[str, tuple[Break, str]] = {
    "truncated weights": (lambda model: os.truncate(model / "model.safetensors", 10_000), "damaged or incomplete"),
    "empty weights": (lambda model: os.truncate(model / "model.safetensors", 0), "damaged or incomplete"),
    "pointer to weights": (as_pointer("model.safetensors"), "model.safetensors is a Git LFS pointer.*git lfs pull"),
    "pointer to tokenizer": (as_pointer("tokenizer.json"), "tokenizer.json is a Git LFS pointer.*git lfs pull"),
    "pointer to config": (as_pointer("config.json"), "config.json is a Git LFS pointer.*git lfs pull"),
    "lost shard": (lose_a_shard, "1 of the files in model.safetensors.index.json are not there"),
    "lost tensor": (index_a_tensor_of_no_shard, "extra.weight is in model.safetensors.index.json and in none"),
    "two sets of weights": (keep_an_old_index, "has both model.safetensors and model.safetensors.index.json"),
    "renamed weights": (
        lambda model: (model / "model.safetensors").rename(model / "a.safetensors"),
        "has a.safetensors",
    ),
    "gguf": (as_gguf, "holds GGUF files"),
    "other vocabulary": (change_config(vocab_size=49_159), "vocab_size is 49159, but .* has 49152 rows"),
    "other width": (change_config(hidden_size=128), "hidden_size is 128, but .* has 64"),
    "other layers": (
        change_config(intermediate_size=48),
        r"proj.weight has the shape .*64.*, its config.json says .*48",
    ),
    "more layers": (change_config(num_hidden_layers=2), "the number of layers is 2, but the weights have 1"),
    "no layers": (change_config(num_hidden_layers=0), "the number of layers is 0, but the weights have 1"),
    "lost weights": (change_weights(lambda w: w.pop("lm_head.weight")), "its weights lack lm_head.weight"),
    "unknown weights": (
        change_weights(lambda w: w.update({"model.extra.weight": torch.ones(2)})),
        "its weights have, and the model does not know, model.extra.weight; save the model again",
    ),
    "compiled": (
        change_weights(lambda w: [w.update({f"_orig_mod.{key}": w.pop(key)}) for key in list(w)]),
        r"its weights lack lm_head.weight, .* and \d+ more; they have, and the model does not know, _orig_mod.lm_head",
    ),
    "distributed": (
        change_weights(lambda w: [w.update({f"module.{key}": w.pop(key)}) for key in list(w)]),
        r"its weights lack .*; they have, and the model does not know, module.lm_head",
    ),
    "encoder": (change_config(model_type="bert", architectures=["BertForMaskedLM"]), "does not predict next tokens"),
    "headless": (change_config(architectures=["LlamaModel"]), "is a LlamaModel, which does not predict next tokens"),
    "classifier": (change_config(architectures=["LlamaForSequenceClassification"]), "does not predict next tokens"),
    "encoder-decoder": (
        change_config(model_type="t5", architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True),
        "is a T5ForConditionalGeneration, which does not",
    ),
    "encoder without a name": (change_config(model_type="bert", architectures=None), "do not generate text"),
    "unknown type": (
        change_config(model_type="quillon5", architectures=["Quillon5ForCausalLM"]),
        "does not know models",
    ),
    "gptq": (change_config(quantization_config={"quant_method": "gptq", "bits": 4}), r"are quantized \(gptq\)"),
    "awq": (change_config(quantization_config={"quant_method": "awq"}), r"are quantized \(awq\)"),
    "bitsandbytes": (change_config(quantization_config={"quant_method": "bitsandbytes"}), "quantized .bitsandbytes"),
    "fp8": (change_config(quantization_config={"quant_method": "fp8"}), r"are quantized \(fp8\)"),
    "fp8 without a word": (
        change_weights(lambda w: w.update({k: v.to(torch.float8_e4m3fn) for k, v in w.items() if "proj" in k})),
        "its weights are quantized .*F8_E4M3",
    ),
    "int8 without a word": (
        change_weights(lambda w: w.update({"model.layers.0.mlp.up_proj.weight_scale": torch.ones(1)})),
        "its weights are quantized",
    ),
    "tokenizer that is none": (
        lambda model: (model / "tokenizer.json").write_text("{}"),
        "tokenizer.json and the files next to it",
    ),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer.json"),
}


@pytest.mark.parametrize(("break_it", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_or_foreign_model_is_one_line(bare_model: Path, break_it: Break, message: str) -> None:
    break_it(bare_model)
    with pytest.raises(InputError, match=message) as raised:
        load(str(bare_model))
    assert "\n" not in str(raised.value)
    assert str(bare_model) in str(raised.value)


def test_tokens_that_were_added_to_a_tokenizer_alone_are_refused(ready_model: Path) -> None:
    def cut(weights: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = weights[name][:49152].clone()

    change_weights(cut)(ready_model)
    change_config(vocab_size=49152)(ready_model)
    with pytest.raises(InputError, match=r"has the token 49153, and the embeddings have 49,152 rows"):
        load(str(ready_model))


def test_complete_shards_are_read(bare_model: Path) -> None:
    whole = checks.read_header(bare_model, "m")
    shard(bare_model)
    assert checks.read_header(bare_model, "m") == whole
    assert whole["lm_head.weight"] == ("F32", [49152, 64])


def test_layers_that_only_predict_further_tokens_are_no_mismatch(bare_model: Path) -> None:
    change_config(num_nextn_predict_layers=1, num_hidden_layers=1)(bare_model)
    change_weights(lambda w: w.update({"model.layers.1.mlp.up_proj.weight": torch.ones(1, 1)}))(bare_model)
    checks.check_model(bare_model, "m")


def test_quantized_model_that_needs_no_more_tokens_is_left_to_its_engine(ready_model: Path) -> None:
    change_config(quantization_config={"quant_method": "fp8"})(ready_model)
    assert load(str(ready_model)).path == ready_model
    with pytest.raises(InputError, match=r"\(for training, and for --engine transformers\) needs full ones"):
        read_model(ready_model, "auto")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; "),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1000000000; "),
        ({"vision_config": {"depth": 10**400}}, "depth is 1"),
        ({"num_labels": 10**8}, "num_labels is "),
        ({"num_local_experts": float("nan")}, "num_local_experts is nan"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number"),
        ({"hidden_size": [64]}, "hidden_size must be a whole number"),
        ({"architectures": 5}, "architectures must be a list"),
        ({"model_type": ["llama"]}, "model_type must be text"),
        ({"text_config": [1]}, "text_config must be an object"),
        ({"rope_scaling": "x"}, "rope_scaling must be an object"),
    ],
)
def test_value_that_no_config_has_is_one_line(bare_model: Path, values: dict[str, Any], problem: str) -> None:
    config = json.loads((bare_model / "config.json").read_text())
    (bare_model / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(InputError, match=f"^{bare_model}: in config.json {problem}"):
        checks.check_model(bare_model, str(bare_model))
