"""PEFT adapters from elsewhere: merged into their base, refused, or left aside."""

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from artsel_ray.errors import InputError
from artsel_ray.models import foreign
from artsel_ray.models.load import check_base, load, load_tokenizer
from artsel_ray.models.options import has_options

Tiny = Callable[[bool], str]
IDS = torch.arange(40)[None] * 7 % 250


@pytest.fixture
def base(tiny_llama: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny untied Llama without option tokens."""
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_llama(False), tmp_path / "base"))


def save_adapter(base: Path, to: Path, settings: Any, rows: int | None = None) -> torch.Tensor:
    """Saves an adapter whose every weight differs from its start, and returns its logits."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    trained: Any = get_peft_model(model, settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        logits = trained.eval()(IDS).logits
    trained.save_pretrained(to)
    return logits


def logits_of(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path)(IDS).logits


LORA: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
KINDS = {
    "lora": LoraConfig(**LORA),
    "dora": LoraConfig(**LORA, use_dora=True),
    "rows": LoraConfig(**LORA, trainable_token_indices={"embed_tokens": [7, 14]}),
    "head": LoraConfig(**LORA, modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_plain_adapter_is_merged_into_its_base(base: Path, tmp_path: Path, settings: Any) -> None:
    expected = save_adapter(base, tmp_path / "adapter", settings)
    model = load(str(tmp_path / "adapter"))
    assert has_options(model.path)
    assert model.model_id.startswith("adapter@")
    got = logits_of(model.path)[..., : expected.shape[-1]]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert (got - logits_of(base)).abs().max() > 0.05
    assert load(str(tmp_path / "adapter")) == model


def test_adapter_with_its_bases_config_and_a_larger_vocabulary_brings_its_tokenizer(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<extra>"])
    settings = LoraConfig(**LORA, modules_to_save=["embed_tokens", "lm_head"])
    expected = save_adapter(base, tmp_path / "adapter", settings, rows=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "adapter")
    shutil.copy(base / "config.json", tmp_path / "adapter")
    model = load(str(tmp_path / "adapter"))
    assert "<extra>" in AutoTokenizer.from_pretrained(model.path).get_vocab()
    torch.testing.assert_close(logits_of(model.path)[..., : len(tokenizer)], expected, atol=1e-4, rtol=1e-4)
    assert load_tokenizer(str(tmp_path / "adapter")) == model.path


def test_adapter_next_to_complete_weights_is_not_applied(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = load(str(base)).model_id
    other = shutil.copytree(base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    save_adapter(other, base, KINDS["lora"])
    model = load(str(base))
    assert model.model_id == alone
    assert (
        f"warning: {base} has complete weights next to adapter_config.json; the adapter is not"
        in capfd.readouterr().err
    )
    ready = Path(shutil.copytree(model.path, tmp_path / "ready"))
    shutil.copy(base / "adapter_config.json", ready)
    shutil.copy(base / "adapter_model.safetensors", ready)
    path = load(str(ready)).path
    assert sorted(file.name for file in path.glob("adapter*")) == []
    torch.testing.assert_close(logits_of(path), logits_of(model.path))


def test_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", KINDS["lora"])
    file = tmp_path / "adapter/adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if "layers.1" not in name}, file)
    with pytest.raises(InputError, match=r"the adapter cannot be merged into its base .*missing adapter keys"):
        load(str(tmp_path / "adapter"))
    save_file({name: torch.ones(4, 3) for name in weights}, file)
    with pytest.raises(InputError, match=r"the adapter cannot be merged into its base .*size mismatch") as raised:
        load(str(tmp_path / "adapter"))
    assert "\n" not in str(raised.value)


def test_adapter_that_no_merge_can_express_is_refused(base: Path, tmp_path: Path) -> None:
    settings = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(InputError, match="adapters of type PROMPT_TUNING cannot be merged"):
        load(str(tmp_path / "adapter"))


def test_incomplete_adapter_is_one_line(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    save_adapter(base, adapter, KINDS["lora"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:900])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is damaged or incomplete"):
        load(str(adapter))
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(InputError, match="save the adapter as safetensors: pickled weights are never read"):
        load(str(adapter))
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    for name, message in ((str(tmp_path / "gone"), "gone' is neither"), (str(adapter), "names itself as its base")):
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))
        with pytest.raises(InputError, match=message):
            load(str(adapter))


def test_merged_adapter_is_that_of_plain_peft(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", KINDS["lora"])
    plain: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    with torch.no_grad():
        expected = plain(IDS).logits
    got = logits_of(load(f"file://{tmp_path}/adapter").path)[..., : expected.shape[-1]]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_adapter_that_its_bases_number_format_would_lose_is_merged_in_float32_and_says_so_at_each_run(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(base).save_pretrained(half)
    save_adapter(half, tmp_path / "adapter", LoraConfig(**LORA))
    file = tmp_path / "adapter/adapter_model.safetensors"
    small = {name: value * (1e-4 if "lora_B" in name else 1) for name, value in load_file(file).items()}
    save_file(small, file, {"format": "pt"})
    for _ in range(2):
        foreign._warn.cache_clear()  # as in another process
        model = load(str(tmp_path / "adapter"))
        assert (
            f"warning: {tmp_path}/adapter: merged into its base's number format, more than 5%" in capfd.readouterr().err
        )
    assert {value.dtype for value in load_file(model.path / "model.safetensors").values()} == {torch.float32}


def test_base_on_another_storage_is_never_connected_to(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", KINDS["lora"])
    file = tmp_path / "adapter/adapter_config.json"
    config = json.loads(file.read_text())
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        do_HEAD = do_GET  # noqa: N815

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        for named in (
            *(
                f"fsspec+http://{at}/x",
                f"hdfs://{at}/x",
                f"s3://b/x?endpoint_override={at}&scheme=http",
                f"abfs://c@{at}/x",
            ),
            *("hf://owner/name", "s3://other/x", "gs://other/x", f"http://{at}/x"),
        ):
            file.write_text(json.dumps(config | {"base_model_name_or_path": named}))
            for read in (load, load_tokenizer):
                with pytest.raises(InputError, match="names a base on another storage"):
                    read(str(tmp_path / "adapter"))
        server.shutdown()
    assert asked == []


def test_adapter_of_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    for name, of in (("first", base), ("second", tmp_path / "first"), ("loop", tmp_path / "loop")):
        save_adapter(base, tmp_path / name, KINDS["lora"])
        file = tmp_path / name / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(of)}))
    for read in (load, load_tokenizer):
        with pytest.raises(InputError, match="first is an adapter, and another adapter's base; merge it"):
            read(str(tmp_path / "second"))
        with pytest.raises(InputError, match="names itself"):
            read(str(tmp_path / "loop"))


def test_layers_are_not_replicated(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", KINDS["lora"])
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layer_replication": [[0, 2]] * 10**6}))
    with pytest.raises(InputError, match="layer_replication are not supported"):
        load(str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("base", "output", "is_right"),
    [
        ("s3://models/llama", "s3://runs/a", True),
        ("gs://models/llama", "/runs/a", True),
        ("s3://models/llama?region=eu", "s3://runs/a?region=eu", True),
        ("meta-llama/Llama-3.2-3B", "s3://runs/a", True),
        ("s3://models/llama?endpoint_override=evil:80", "s3://runs/a", False),
        ("abfs://c@evil/llama", "s3://runs/a", False),
        ("hdfs://evil/llama", "/runs/a", False),
    ],
)
def test_training_may_have_its_base_in_another_bucket_of_the_environments_storage(
    base: str, output: str, is_right: bool
) -> None:
    with nullcontext() if is_right else pytest.raises(InputError, match="names a base on another storage"):
        check_base(base, output, is_own=True)
