"""Frozen vectors of texts: what a language model's middle layers make of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from artsel_ray.engines.base import check_finite
from artsel_ray.engines.torch import batches_of, device_and_dtype
from artsel_ray.models.load import Model
from artsel_ray.models.weights import model_length, read_model, read_tokenizer

# Depths of the layers, as shares of all: early ones know words, and the last ones what comes next.
_DEPTHS = (1 / 2, 2 / 3, 5 / 6)


class TextEncoder:
    """Runs a language model in this process, on the GPU if there is one; nothing of it is trained."""

    def __init__(self, model: Model) -> None:
        device, number_format = device_and_dtype("auto")
        model_of: Any = read_model(model.base, number_format)
        # Without the output layer, which is not needed.
        self._model = model_of.base_model.to(device).eval()
        self._tokenizer, self._length = read_tokenizer(model.base), model_length(model.base)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns each text's mean over its tokens and three middle layers; zeros for one without tokens: [N, E].

        Raises:
            InputError: if the model answers with NaN.
        """
        tokens = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        tokens = [np.array(ids[: self._length], np.int32) for ids in tokens]
        vectors = np.zeros((len(tokens), self._model.config.get_text_config().hidden_size), np.float32)
        filled = [index for index, ids in enumerate(tokens) if len(ids)]
        for batch in batches_of([tokens[index] for index in filled], may_pad=True):
            picked = [filled[index] for index in batch]
            vectors[picked] = self._means([torch.from_numpy(tokens[index]).long() for index in picked])
        check_finite(vectors)
        return vectors

    def _means(self, rows: list[torch.Tensor]) -> NDArray[np.float32]:
        # Each token sees only those before it, so that padding after a text changes nothing.
        ids = pad_sequence(rows, batch_first=True).to(self._model.device)
        shown = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(self._model.device)
        states = self._model(input_ids=ids, attention_mask=shown, use_cache=False, output_hidden_states=True)
        layers = len(states.hidden_states) - 1
        mean = torch.stack([states.hidden_states[round(depth * layers)].float() for depth in _DEPTHS]).mean(0)
        return ((mean * shown[..., None]).sum(1) / shown.sum(1, keepdim=True)).cpu().numpy()
