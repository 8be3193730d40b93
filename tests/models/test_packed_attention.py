"""Packed rows against the same rows one by one: hidden states, losses and gradients are the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from artsel_ray.decoding.trie import build, rank
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.models.load import load
from artsel_ray.models.packed_attention import block_mask, bucket, use_packed_attention
from artsel_ray.models.weights import read_model
from artsel_ray.prompts.packing import pack
from artsel_ray.train.choice_objective import ask, choice_loss, log_probabilities
from tests.support.training import CAPTIONS, TinyLlama, prompts_of

VOCABULARY = 120
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.4,
}  # fmt: skip
Rows = list[list[int]]


def llama(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    made: Any = LlamaForCausalLM(LlamaConfig(**SIZES))
    made.to(dtype)
    if dtype == torch.float64:  # a Llama's own norms compute in float32
        for layer in made.model.layers:
            layer.input_layernorm = layer.post_attention_layernorm = torch.nn.RMSNorm(32, dtype=dtype)
        made.model.norm = torch.nn.RMSNorm(32, dtype=dtype)
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    """A Llama with grouped queries, in float64."""
    made = llama(torch.float64)
    assert use_packed_attention(made)
    return made


def draw(rng: np.random.Generator, most: int) -> list[int]:
    """Returns a random number of random tokens."""
    return rng.integers(0, VOCABULARY, rng.integers(1, most)).tolist()


def make_rows(seed: int, titles: int, users: int, answers: int) -> tuple[Rows, list[int]]:
    """Returns rows of random lengths, as a batch may have them, and how many of their last tokens are the answer."""
    rng = np.random.default_rng(seed)
    rows, tails = [], []
    for _ in range(titles):
        title = draw(rng, 60)
        for _ in range(rng.integers(1, users + 1)):
            prompt = title + draw(rng, 50)
            for _ in range(answers):
                answer = draw(rng, 9)
                rows.append(prompt + answer)
                tails.append(len(answer))
    return rows, tails


def one_by_one(model: Any, rows: Rows, tails: list[int]) -> list[torch.Tensor]:
    """Returns the logits that predict each row's last tokens, and what comes after them."""
    logits = [model(input_ids=torch.tensor([row])).logits[0] for row in rows]
    return [each[-tail - 1 :] for each, tail in zip(logits, tails, strict=True)]


def together(model: Any, rows: Rows, tails: list[int]) -> list[torch.Tensor]:
    """Returns the same of packed rows."""
    packed = pack(rows, [tail + 1 for tail in tails])
    batch = torch.zeros(len(rows), max(tails) + 1, dtype=torch.long)
    logits = model(input_ids=batch, packed=packed).logits
    return [each[: tail + 1] for each, tail in zip(logits, tails, strict=True)]


def answer_log_p(logits: list[torch.Tensor], rows: Rows, tails: list[int]) -> torch.Tensor:
    """Returns the log-probability of each row's answer."""
    pairs = zip(logits, rows, tails, strict=True)
    return torch.stack([each[:-1].log_softmax(-1).gather(1, torch.tensor(row[-tail:])[:, None]).sum()
                        for each, row, tail in pairs])  # fmt: skip


def sft_loss(forward: Any, model: Any, rows: Rows, tails: list[int]) -> torch.Tensor:
    return -answer_log_p(forward(model, rows, tails), rows, tails).sum() / sum(tails)


def dpo_loss(forward: Any, model: Any, rows: Rows, tails: list[int]) -> torch.Tensor:
    """Takes the rows in turn as chosen and as rejected; the reference's ratio is a constant."""
    chosen, rejected = answer_log_p(forward(model, rows, tails), rows, tails).view(-1, 2).T
    return -functional.logsigmoid(0.1 * (chosen - rejected) + 0.3).mean()


def choice_objective(forward: Any, model: Any, rows: Rows, tails: list[int]) -> torch.Tensor:
    """Takes the tokens before the answers as prompts, and random answers as candidates."""
    rng = np.random.default_rng(len(rows))
    prompts = [row[:-tail] for row, tail in zip(rows, tails, strict=True)]
    tries = [build([draw(rng, 4) for _ in range(3)], VOCABULARY - 1) for _ in prompts]
    questions = ask(tries, [range(3)] * len(tries))
    asked = [prompts[prompt] + path.tolist() for prompt, path in zip(questions.prompts, questions.paths, strict=True)]
    logits = torch.stack([each[-1] for each in forward(model, asked, [0] * len(asked))])
    prior = torch.arange(3.0, dtype=torch.float64).expand(len(tries), -1)
    return choice_loss(log_probabilities(logits, questions), torch.zeros(len(tries)).long(), prior).mean()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_same(model: Any, loss: Any, rows: Rows, tails: list[int], tolerance: float) -> None:
    """Compares loss and gradients, relative to the largest."""
    plain, packed = loss(one_by_one, model, rows, tails), loss(together, model, rows, tails)
    assert packed.item() == pytest.approx(plain.item(), rel=tolerance, abs=tolerance)
    expected, got = gradients(model, plain), gradients(model, packed)
    largest = max(each.abs().max() for each in expected.values())
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=float(tolerance * largest), msg=name)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4))
def test_sft_is_the_same_packed(model: Any, seed: int, titles: int, users: int) -> None:
    assert_same(model, sft_loss, *make_rows(seed, titles, users, 1), 1e-10)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4))
def test_dpo_is_the_same_packed(model: Any, seed: int, titles: int, users: int) -> None:
    assert_same(model, dpo_loss, *make_rows(seed, titles, users, 2), 1e-10)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4))
def test_the_choice_objective_is_the_same_packed(model: Any, seed: int, titles: int, users: int) -> None:
    assert_same(model, choice_objective, *make_rows(seed, titles, users, 1), 1e-10)


@pytest.mark.parametrize("loss", [sft_loss, dpo_loss, choice_objective])
def test_losses_are_the_same_in_float32(loss: Any) -> None:
    single = llama()
    assert use_packed_attention(single)
    assert_same(single, loss, *make_rows(1, 2, 4, 2), 1e-5)


def test_lora_with_gradient_checkpointing_is_the_same_packed() -> None:
    adapted: Any = get_peft_model(llama(), LoraConfig(target_modules="all-linear", init_lora_weights=False))
    assert use_packed_attention(adapted.get_base_model())
    adapted.enable_input_require_grads()
    adapted.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(adapted.train(), sft_loss, *make_rows(2, 2, 4, 1), 1e-5)


def test_autocast_to_bfloat16_changes_no_more_than_it_does_unpacked() -> None:
    half = llama()
    assert use_packed_attention(half)
    rows, tails = make_rows(3, 1, 6, 1)
    exact = sft_loss(one_by_one, half, rows, tails)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [abs(sft_loss(forward, half, rows, tails) - exact) for forward in (one_by_one, together)]
    assert errors[1] < 0.02 * exact
    assert errors[0] < 0.02 * exact


def test_padded_batches_are_computed_as_before() -> None:
    plain, packing = llama(), llama()
    assert use_packed_attention(packing)
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, :5] = 0
    for inputs in ({"attention_mask": mask}, {}):
        torch.testing.assert_close(packing(input_ids=ids, **inputs).logits, plain(input_ids=ids, **inputs).logits)


GEMMA2 = Gemma2Config(**SIZES, attn_logit_softcapping=0.5, layer_types=["full_attention"] * 2)
GEMMA2._attn_implementation = "eager"  # SDPA knows no cap
OTHERS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0, bos_token_id=0, eos_token_id=1)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    # Positions by the distance to the key, a window that hides the title from the answer, logits with a cap.
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16)),
    "gemma2": lambda: Gemma2ForCausalLM(GEMMA2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_only_models_with_the_same_answers_are_packed(name: str) -> None:
    torch.manual_seed(0)
    other: Any = OTHERS[name]().eval()
    rows, tails = make_rows(4, 1, 3, 1)
    before, implementation = one_by_one(other, rows, tails), other.config._attn_implementation
    if name in ("gpt2", "qwen3"):
        assert use_packed_attention(other)
        for got, expected in zip(together(other, rows, tails), before, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
        return
    assert not use_packed_attention(other)
    assert other.config._attn_implementation == implementation
    for got, expected in zip(one_by_one(other, rows, tails), before, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("output", ["text", "number"])
def test_the_choice_objective_is_what_rank_scores(output: str, tiny_llama: TinyLlama) -> None:
    model = read_model(load(tiny_llama(True)).base, torch.float32)
    tokenizer = prompts_of(load(tiny_llama(True)), output=output)
    captions = [*CAPTIONS, CAPTIONS[0], "A red house.", "A red tower by the sea."]
    options = tokenizer.options("Up", ["Comedy"], captions)
    prompts = tokenizer.prompts(options.prefix, [tokenizer.encode([f" a history {number}"])[0] for number in range(3)])
    tries = [build(options.answers, tokenizer.option_end)] * 3
    expected = rank(TorchEngine(model), prompts, tries)
    assert use_packed_attention(model)
    questions = ask(tries, [range(len(captions))] * 3)
    asked = [np.concatenate((prompts[prompt], path)).tolist()
             for prompt, path in zip(questions.prompts, questions.paths, strict=True)]  # fmt: skip
    logits = torch.stack([each[-1] for each in together(model, asked, [0] * len(asked))])
    got = log_probabilities(logits, questions)
    np.testing.assert_allclose(got.detach().exp().numpy(), expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 12))
def test_blocks_are_those_of_the_whole_mask(seed: int, titles: int, users: int) -> None:
    rows, tails = make_rows(seed, titles, users, 2)
    ends = pack(rows, tails).subtree_ends
    length = bucket(len(ends))
    padded = torch.from_numpy(np.concatenate((ends, np.arange(len(ends), length) + 1)))
    got = block_mask(padded)
    assert got.mask_mod is not None
    whole = create_block_mask(got.mask_mod, None, None, length, length, device="cpu")
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        torch.testing.assert_close(getattr(got, name), getattr(whole, name), msg=name)
    assert torch.equal(got.to_dense(), whole.to_dense())
    for counts, indices in (("kv_num_blocks", "kv_indices"), ("full_kv_num_blocks", "full_kv_indices")):
        for count, mine, theirs in zip(
            getattr(got, counts)[0, 0], getattr(got, indices)[0, 0], getattr(whole, indices)[0, 0], strict=True
        ):
            assert mine[:count].tolist() == theirs[:count].tolist()


def test_flex_attention_is_the_same(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, but not compiled, and forward alone: FlexAttention has no backward on CPUs."""
    rows, tails = make_rows(5, 2, 5, 2)
    expected = sft_loss(together, model, rows, tails)
    monkeypatch.setattr("artsel_ray.models.packed_attention._uses_flex", lambda device: True)
    monkeypatch.setattr("transformers.integrations.flex_attention.WrappedFlexAttention",
                        lambda training: lambda: flex_attention)  # fmt: skip
    with torch.no_grad():
        got = sft_loss(together, model, rows, tails)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_lengths_are_few_and_little_longer() -> None:
    found = {bucket(count) for count in range(1, 20_000)}
    assert len(found) < 60
    assert all(each % 128 == 0 for each in found)
    assert all(count <= bucket(count) <= max(count * 1.14 + 1, -(-count // 128) * 128) for count in range(1, 20_000))
