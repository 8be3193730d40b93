"""The tensors of one optimizer step.

Suffixes: b examples of the batch, c their candidates end to end, h their history items end to end, a their distinct
artworks, i their distinct items (titles and history items), f features of a history item.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from artsel_ray.baseline.encoding import NetworkInputs, ranges
from artsel_ray.baseline.example_arrays import IntArray

SparseRows = tuple[Tensor, Tensor, Tensor]
"""Column indices, row offsets and values, as `EmbeddingBag` takes them."""


@dataclass(frozen=True)
class Batch:
    """Examples, with each artwork and item that they share once.

    Attributes:
        example_c, example_h: index of the candidate's or the history item's example.
        position_c: index of the candidate among its example's.
        artwork_c, title_b, item_h: indices into the batch's artworks and items.
        own_engagement_c: 1 at the engaged candidate in train, which popularity must not count; else 0.
        id_a, name_i: indices into the vocabulary, 0 if unknown.
    """

    label_b: Tensor
    title_b: Tensor
    example_c: Tensor
    position_c: Tensor
    artwork_c: Tensor
    own_engagement_c: Tensor
    example_h: Tensor
    item_h: Tensor
    history_hf: Tensor
    id_a: Tensor
    engagements_a: Tensor
    captions_a: SparseRows
    name_i: Tensor
    name_terms_i: SparseRows
    genres_i: SparseRows


def make_batch(inputs: NetworkInputs, picked_b: IntArray) -> Batch:
    """Returns the batch of the examples at these indices."""
    candidates_b, history_b = inputs.candidates_n[picked_b], inputs.history_n[picked_b]
    candidate_c = ranges(inputs.first_candidate_n[picked_b], candidates_b)
    history_h = ranges(inputs.first_history_n[picked_b], history_b)
    artwork_a, artwork_c = np.unique(inputs.artwork_c[candidate_c], return_inverse=True)
    items = np.concatenate([inputs.title_n[picked_b], inputs.item_h[history_h]])
    item_i, local = np.unique(items, return_inverse=True)
    example_b = np.arange(len(picked_b))
    return Batch(
        label_b=torch.from_numpy(inputs.label_n[picked_b]),
        title_b=torch.from_numpy(local[: len(picked_b)]),
        example_c=torch.from_numpy(np.repeat(example_b, candidates_b)),
        position_c=torch.from_numpy(ranges(np.zeros_like(candidates_b), candidates_b)),
        artwork_c=torch.from_numpy(artwork_c),
        own_engagement_c=torch.from_numpy(inputs.engaged_c[candidate_c].astype(np.float32)),
        example_h=torch.from_numpy(np.repeat(example_b, history_b)),
        item_h=torch.from_numpy(local[len(picked_b) :]),
        history_hf=torch.from_numpy(inputs.history_hf[history_h]),
        id_a=torch.from_numpy(inputs.id_a[artwork_a]),
        engagements_a=torch.from_numpy(inputs.engagements_a[artwork_a].astype(np.float32)),
        captions_a=_tensors(inputs.captions_a[artwork_a]),
        name_i=torch.from_numpy(inputs.name_i[item_i]),
        name_terms_i=_tensors(inputs.name_terms_i[item_i]),
        genres_i=_tensors(inputs.genres_i[item_i]),
    )


def _tensors(rows: csr_matrix) -> SparseRows:
    return torch.from_numpy(rows.indices), torch.from_numpy(rows.indptr), torch.from_numpy(rows.data)
