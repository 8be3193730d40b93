"""Attention over packed rows (`artsel_ray.prompts.packing`), for the language models of transformers.

`model(input_ids=…, packed=rows)` computes the packed sequence instead of the batch, and goes on with the hidden states
of the rows' tails, as if the batch had been these tails after all that is before them. So heads and losses know nothing
of packing. On CPUs each level of the forest is one SDPA call over the tokens above and its own; on GPUs FlexAttention
computes all at once. Neither builds a mask of all tokens by all tokens.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from artsel_ray.prompts.packing import PackedRows, pack

PACKED = "packed"
"""Name of the attention in transformers, and of the argument with the rows."""
_BLOCK = 128  # tokens of a block of FlexAttention's masks
# Shared and other tokens of the rows on which a model is tried, and the relative error of floats and of halves.
_PROBE, _TOLERANCE = (24, 8), (1e-4, 0.05)


@dataclass(frozen=True)
class _Level:
    """The n nodes of equal depth, padded to the longest: S tokens."""

    nodes: list[int]
    longest: int
    above: list[Tensor | None]
    """For each level above, the [n] position of each node's node there; None if that level has only one."""
    mask: Tensor | None
    """[n or 1, 1, S, keys] which keys the tokens attend to; None for roots, which are causal."""


@dataclass(frozen=True)
class _Plan:
    """What attention needs to know of packed rows, on the model's device."""

    inputs: dict[str, Tensor]
    """[1, N] `input_ids` and `position_ids`."""
    tails: Tensor
    """[R, longest] as in `PackedRows`."""
    lengths: list[int]
    """[K] as in `PackedRows`."""
    levels: list[_Level]
    """From the roots down; empty for FlexAttention."""
    blocks: BlockMask | None
    """The mask, for FlexAttention."""


def use_packed_attention(model: PreTrainedModel) -> bool:
    """Makes a model take packed rows; other inputs are computed as before.

    Returns:
        Whether it does. Otherwise the model stays as it was: its attention has windows or dropout, or tried on two
        rows, it gives other logits packed than one by one.
    """
    backbone: Any = model.base_model
    earlier = model.config._attn_implementation
    if backbone is model or not _attends_fully(model) or not model._can_set_attn_implementation():
        return False
    hooks = [
        backbone.register_forward_pre_hook(_pack_inputs, with_kwargs=True),
        backbone.register_forward_hook(_unpack_output, with_kwargs=True),
    ]
    plain = _probed(model, packs=False)
    model.set_attn_implementation(PACKED)
    error = float((_probed(model, packs=True) - plain).norm() / plain.norm())
    if not error <= _TOLERANCE[model.dtype != torch.float32]:
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation(earlier)
        return False
    return True


def _attends_fully(model: PreTrainedModel) -> bool:
    config: Any = model.config
    if config.get_text_config() is not config:  # positions of images are no line
        return False
    if getattr(config, "attention_dropout", 0) or getattr(config, "attn_pdrop", 0):  # FlexAttention has none
        return False
    types = getattr(config, "layer_types", None)
    return set(types) == {"full_attention"} if types else not getattr(config, "sliding_window", None)


@torch.no_grad()
def _probed(model: Any, packs: bool) -> Tensor:
    """Returns the logits of two rows with a shared prefix: [2, tokens after it, vocabulary]."""
    shared, own = _PROBE
    rows = torch.arange(2 * (shared + own), device=model.device).view(2, -1) % (model.config.vocab_size - 1)
    rows[:, :shared] = rows[0, :shared]
    packed = {PACKED: pack(rows.tolist(), [own, own])} if packs else {}
    training = model.training
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype != torch.float32):
        logits = model(input_ids=rows, use_cache=False, **packed).logits[:, -own:]
    model.train(training)
    return logits.float()


def _pack_inputs(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    rows = kwargs.get(PACKED)
    if rows is None:
        return None
    plan = _plan(rows, module.device)
    # Only GPT-2 and its kind pass ids by position.
    return args[1:], {**kwargs, **plan.inputs, "attention_mask": None, PACKED: plan}


def _unpack_output(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    plan = kwargs.get(PACKED)
    if plan is not None:
        states = output.last_hidden_state[0].index_select(0, plan.tails.flatten())
        output.last_hidden_state = states.view(*plan.tails.shape, -1)
    return output


def _plan(rows: PackedRows, device: torch.device) -> _Plan:
    uses_flex = _uses_flex(device)
    padding = bucket(len(rows.ids)) - len(rows.ids) if uses_flex else 0
    inputs = {
        "input_ids": _tensor(np.pad(rows.ids, (0, padding))[None], device),
        "position_ids": _tensor(np.pad(rows.positions, (0, padding))[None], device),
    }
    tails, lengths = _tensor(rows.tails, device), rows.lengths.tolist()
    if not uses_flex:
        return _Plan(inputs, tails, lengths, _levels(rows, device), None)
    # What is padded sees only itself.
    ends = np.concatenate((rows.subtree_ends, np.arange(len(rows.ids), len(rows.ids) + padding) + 1))
    return _Plan(inputs, tails, lengths, [], block_mask(_tensor(ends, device)))


def _uses_flex(device: torch.device) -> bool:
    return device.type == "cuda" and find_spec("triton") is not None


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


def _levels(rows: PackedRows, device: torch.device) -> list[_Level]:
    depth = np.zeros(len(rows.parents), dtype=np.int64)
    for node, parent in enumerate(rows.parents):  # parents come first
        depth[node] = depth[parent] + 1 if parent >= 0 else 0
    levels: list[_Level] = []
    for nodes in (np.flatnonzero(depth == level) for level in range(depth.max() + 1)):
        above: list[Tensor | None] = []
        seen: list[np.ndarray] = []
        ancestors = nodes
        for level in reversed(levels):
            ancestors = rows.parents[ancestors]
            seen.insert(0, np.arange(level.longest) < rows.lengths[ancestors][:, None])
            place = np.searchsorted(level.nodes, ancestors)
            above.insert(0, None if len(level.nodes) == 1 else _tensor(place, device))
        longest = int(rows.lengths[nodes].max())
        mask = _level_mask(np.concatenate(seen, axis=1), longest).to(device) if seen else None
        levels.append(_Level(nodes.tolist(), longest, above, mask))
    return levels


def _level_mask(seen: np.ndarray, longest: int) -> Tensor:
    """Returns the mask of a level: [n or 1, 1, S, keys above and S].

    Args:
        seen: [n, keys above] whether a key is a token; one mask serves all nodes if all are.
        longest: S; what a node is padded with comes last, so that causality alone hides it.
    """
    above = torch.from_numpy(seen[:1] if seen.all() else seen)
    own = torch.ones(longest, longest, dtype=torch.bool).tril()
    parts = above[:, None, :].expand(-1, longest, -1), own.expand(len(above), -1, -1)
    return torch.cat(parts, dim=2)[:, None]


def bucket(count: int) -> int:
    """Returns the length to which so many tokens are padded: whole blocks, and at most an eighth more."""
    step = max(_BLOCK, 1 << max(count.bit_length() - 4, 0))
    return -(-count // step) * step


def block_mask(subtree_ends: Tensor) -> BlockMask:
    """Returns FlexAttention's mask of packed tokens: [N] ends as in `PackedRows`, for N a multiple of the block.

    Of a block of keys, the tokens of a later block see some if the last end is behind its first token, and all if the
    first end is behind its last. So blocks are compared by two numbers each, and no mask of N × N is built.
    """
    ends = subtree_ends.view(-1, _BLOCK)
    blocks = torch.arange(len(ends), device=ends.device)
    is_later = blocks[:, None] > blocks
    sees_all = is_later & (ends.amin(1) >= (blocks[:, None] + 1) * _BLOCK)
    sees_some = is_later & ~sees_all & (ends.amax(1) > blocks[:, None] * _BLOCK) | (blocks[:, None] == blocks)

    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query < subtree_ends[key])

    return BlockMask.from_kv_blocks(*_listed(sees_some), *_listed(sees_all), BLOCK_SIZE=_BLOCK, mask_mod=mask)


def _listed(sees: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the number of key blocks for each query block, and first their indices: [1, 1, blocks(, blocks)]."""
    counts, indices = sees.sum(1, dtype=torch.int32), sees.int().argsort(dim=1, descending=True, stable=True)
    return counts[None, None], indices.int()[None, None]


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Any]:
    """Attention as transformers calls it, from [batch, heads, tokens, width] to [batch, tokens, heads, width]."""
    plan = kwargs.pop(PACKED, None)
    if plan is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if plan.blocks is None:
        return _attention_by_level(module, plan, (query, key, value), kwargs), None
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves rotated ones in float32
    return flex_attention_forward(module, query, key, value, plan.blocks, **kwargs)


def _attention_by_level(
    module: Any, plan: _Plan, states: tuple[Tensor, Tensor, Tensor], kwargs: dict[str, Any]
) -> Tensor:
    """Splits, pads, stacks and joins the nodes: indexing by token would have a slow gradient."""
    parts = [each[0].transpose(0, 1).split(plan.lengths) for each in states]
    queries, keys, values = ([_padded(level, part) for level in plan.levels] for part in parts)
    outputs: dict[int, Tensor] = {}
    for depth, level in enumerate(plan.levels):
        key, value = (
            torch.cat([*(_of_above(each[at], level, at) for at in range(depth)), each[depth]], dim=2)
            for each in (keys, values)
        )
        kwargs["is_causal"] = level.mask is None
        output, _ = sdpa_attention_forward(module, queries[depth], key, value, level.mask, **kwargs)
        outputs |= zip(level.nodes, output.unbind(0), strict=True)
    return torch.cat([outputs[node][:length] for node, length in enumerate(plan.lengths)])[None]


def _padded(level: _Level, parts: tuple[Tensor, ...]) -> Tensor:
    """Returns the states of a level's nodes, of [tokens, heads, width] each: [n, heads, S, width]."""
    own = [parts[node] for node in level.nodes]
    return torch.stack([pad(each, (0, 0, 0, 0, 0, level.longest - len(each))) for each in own]).transpose(1, 2)


def _of_above(states: Tensor, level: _Level, at: int) -> Tensor:
    """Returns the states of a higher level for each of a level's nodes: [n, heads, S above, width]."""
    nodes = level.above[at]
    return states.expand(len(level.nodes), -1, -1, -1) if nodes is None else states.index_select(0, nodes)


def _mask(**kwargs: Any) -> Tensor | None:
    """Without padding there is nothing to mask: packed rows have their own mask, and others are causal."""
    return None if kwargs["attention_mask"] is None else sdpa_mask(**kwargs)


AttentionInterface.register(PACKED, _attention)
AttentionMaskInterface.register(PACKED, _mask)
