"""The network over a language model's frozen vectors, and its sum with the network of words.

Suffixes: b examples of a batch, c their candidates end to end, a distinct artworks, i distinct items, m most candidates
of an example, d width, k networks.
"""

import torch
from torch import Tensor, nn

from artsel_ray.network.encoding import HISTORY_FEATURES, Batch
from artsel_ray.network.towers import Network, Sizes, Towers, history_mean

# Vectors have elements of about 1: these make their weights learn as slowly as many dense inputs need, and those of
# names, of which there are few, slower still.
_CAPTION_SCALE, _NAME_SCALE = 0.1, 0.01


class EncoderNetwork(Network):
    """Matches by `user · (V caption) + b · caption`, where the caption is a frozen vector.

    user: the history's items (genres, and the frozen vector of the name), weighted as in `Towers`. It knows no ids and
    no word, so that it judges artworks that were never shown as well as others.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.caption = nn.Parameter(torch.randn(sizes.vector, sizes.width) * 0.5)
        self.bias = nn.Parameter(torch.zeros(sizes.vector))
        self.name = nn.Parameter(torch.zeros(sizes.vector, sizes.width))
        self.genre = nn.EmbeddingBag(sizes.genres + 1, sizes.width, mode="sum", include_last_offset=True)
        self.attention = nn.Linear(HISTORY_FEATURES, 1)
        self.anyone = nn.Parameter(torch.zeros(sizes.width))
        nn.init.zeros_(self.attention.weight)

    def start_at_zero(self) -> None:
        """See `Network`."""
        super().start_at_zero()
        nn.init.zeros_(self.genre.weight)

    def match(self, batch: Batch) -> Tensor:
        """See `Network`."""
        vector_ae = batch.vector_ae * _CAPTION_SCALE
        item_id = self.genre(*batch.genres_i) + batch.vector_ie @ self.name * _NAME_SCALE
        user_bd = history_mean(batch, self.attention, item_id) + self.anyone
        product_c = (user_bd[batch.example_c] * (vector_ae @ self.caption)[batch.artwork_c]).sum(dim=1)
        return product_c + (vector_ae @ self.bias)[batch.artwork_c]


class Fusion(nn.Module):
    """Both networks' log-probabilities, added with weights: one pair of them for titles that train has, one for others.

    Words, ids and popularity are better where train has seen the artworks, and vectors where it has not.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.networks = nn.ModuleList([Towers(sizes), EncoderNetwork(sizes)])
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor([[0.0, 1.0], [0.5, 0.5]]))  # of new titles, of known ones

    def forward(self, batch: Batch) -> Tensor:
        """Returns `[B, M]` log-probabilities of the candidates in their order; -inf where there is none."""
        log_kbm = torch.stack([network(batch) for network in self.networks])
        return mixed(log_kbm, self.weights[is_known(batch).long()])


def is_known(batch: Batch) -> Tensor:
    """Tells for each example whether train has one of its artworks: [B]."""
    known_c = (batch.id_a > 0)[batch.artwork_c].float()
    return torch.zeros(len(batch.label_b)).index_add(0, batch.example_c, known_c) > 0


def mixed(log_kbm: Tensor, weight_bk: Tensor) -> Tensor:
    """Returns the log-probabilities of a weighted sum of networks' log-probabilities: [B, M]."""
    score_bm = (log_kbm.nan_to_num(neginf=0.0) * weight_bk.T[:, :, None]).sum(dim=0)
    return torch.where(log_kbm[0].isfinite(), score_bm, -torch.inf).log_softmax(dim=1)
