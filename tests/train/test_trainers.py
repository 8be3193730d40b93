"""What SFT and DPO share: which positions cost anything, and the order of examples."""

from collections.abc import Callable

import pytest
import torch
import trl.trainer.utils
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from artsel_ray.models import adapter
from artsel_ray.models.load import load
from artsel_ray.train.trainers import Order, compute_targets_only


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_head_computes_targets_only_and_learns_the_same(
    tied: bool, tiny_llama: Callable[[bool], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, rows = trl.trainer.utils._ChunkedLogProbFunction, []

    class Counted:
        @staticmethod
        def apply(hidden: torch.Tensor, *arguments: object) -> object:
            rows.append(len(hidden))
            return kernel.apply(hidden, *arguments)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Counted)
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", lambda device: False)
    path = load(tiny_llama(tied)).path
    size = AutoConfig.from_pretrained(path).vocab_size
    tokens = [size - 2, size - 1]  # the option tokens
    ids = torch.arange(120).view(2, 60) * 163 % size
    ids[:, ::5], labels = tokens[0], ids.clone()
    labels[:, :-4] = -100
    losses, gradients = [], []
    for patched in (False, True):
        if patched:
            compute_targets_only()
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        trl.trainer.utils.add_fused_lm_head(model)
        torch.manual_seed(0)
        trained = get_peft_model(model, adapter.lora_config(model, 4, 8, tokens))
        adapter.let_fused_head_read_rows(model)
        output = trained(input_ids=ids, labels=labels, fused_lm_head=True)
        output.loss.backward()
        losses.append(float(output.loss.detach()))
        gradients.append({name: p.grad for name, p in trained.named_parameters() if p.requires_grad})
    assert rows == [2 * 59, 2 * 4]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert any("trainable_tokens_delta" in name for name in gradients[0])
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-5, rtol=1e-4, msg=name)


def test_the_order_has_every_example_once_and_similar_lengths_side_by_side() -> None:
    lengths = [100 + index * 7919 % 1000 for index in range(800)]
    order = Order(lengths, 32, 0)
    first = list(order)
    assert sorted(first) == list(range(800))
    spread = [
        max(batch) - min(batch) for batch in ([lengths[i] for i in first[at : at + 4]] for at in range(0, 800, 4))
    ]
    assert sum(spread) / len(spread) < 50  # of 1,000; about 600 in a random order
    order.set_epoch(1)
    assert list(order) != first
    order.set_epoch(0)
    assert list(order) == first
    assert list(Order(lengths, 32, 1)) != first
