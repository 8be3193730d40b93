"""The network of words: a user tower, an artwork tower, popularity, and a softmax over a title's candidates.

Suffixes: b examples of a batch, c their candidates end to end, h their history items end to end, a distinct artworks,
i distinct items, m most candidates of an example, d width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from artsel_ray.network.encoding import HISTORY_FEATURES, Batch
from artsel_ray.network.vocabulary import BUCKETS


@dataclass(frozen=True)
class Sizes:
    """The network's shape: entries of the vocabulary, length of the vectors, share of ids hidden in training."""

    artworks: int
    names: int
    genres: int
    width: int
    id_dropout: float
    vector: int = 0
    """Elements of a language model's vectors, 0 without one."""


class Network(nn.Module):
    """Scores `match + popularity`; the choice is the softmax over an example's candidates.

    popularity: a learned factor times the log of (engagements in train + a learned count).
    """

    def __init__(self) -> None:
        super().__init__()
        # Factor, and log of the count that is added to every artwork's engagements.
        self.popularity = nn.Parameter(torch.tensor([1.0, 0.0]))
        # The inverse of a temperature, which validation sets after training.
        self.sharpness: Tensor
        self.register_buffer("sharpness", torch.tensor(1.0))

    def match(self, batch: Batch) -> Tensor:
        """Returns `[C]` scores of how well each candidate goes with its example's user."""
        raise NotImplementedError

    def start_at_zero(self) -> None:
        """Sets the weights that lead to the score to 0: untrained, the network is then a random draw."""
        with torch.no_grad():
            self.popularity.zero_()

    def forward(self, batch: Batch) -> Tensor:
        """Returns `[B, M]` log-probabilities of the candidates in their order; -inf where there is none."""
        engagements_c = batch.engagements_a[batch.artwork_c] - batch.own_engagement_c
        popularity_c = self.popularity[0] * torch.log(engagements_c + self.popularity[1].exp())
        score_c = self.match(batch) + popularity_c
        score_bm = torch.full((len(batch.label_b), int(batch.position_c.max()) + 1), -torch.inf)
        return score_bm.index_put((batch.example_c, batch.position_c), score_c * self.sharpness).log_softmax(dim=1)


def history_mean(batch: Batch, attention: nn.Linear, item_id: Tensor) -> Tensor:
    """Returns `[B, D]` means of the history's items, weighted by a learned function of recency and watch time."""
    # A softmax over each example's history; the clamp keeps its exponents finite.
    weight_h = torch.exp(attention(batch.history_hf)[:, 0].clamp(-15, 15))
    total_b = torch.zeros(len(batch.label_b)).index_add(0, batch.example_h, weight_h)
    weighted_hd = (weight_h / total_b[batch.example_h])[:, None] * item_id[batch.item_h]
    return torch.zeros(len(batch.label_b), item_id.shape[1]).index_add(0, batch.example_h, weighted_hd)


class Towers(Network):
    """Matches by `user · artwork / √d + bias`.

    user: the history's items (name, its terms, genres), weighted by a learned function of recency and watch time, and
    the title's own item. artwork: the caption's terms and the artwork's id, which is dropped at random in training, so
    that the network learns to judge unknown artworks by their captions.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.id_dropout = sizes.id_dropout
        # The last column is a term's bias: one lookup gives both.
        self.text = nn.EmbeddingBag(BUCKETS, width + 1, mode="sum", include_last_offset=True)
        self.artwork = nn.Embedding(sizes.artworks + 1, width, padding_idx=0)
        self.artwork_bias = nn.Embedding(sizes.artworks + 1, 1, padding_idx=0)
        self.name = nn.Embedding(sizes.names + 1, width, padding_idx=0)
        self.genre = nn.EmbeddingBag(sizes.genres + 1, width, mode="sum", include_last_offset=True)
        self.attention = nn.Linear(HISTORY_FEATURES, 1)
        self.user = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.skip = nn.Linear(width, width, bias=False)
        for table in (self.text, self.artwork, self.name, self.genre):
            nn.init.normal_(table.weight, std=0.125)
        nn.init.zeros_(self.artwork_bias.weight)
        with torch.no_grad():
            self.text.weight[:, -1].zero_()
            for table in (self.artwork, self.name):
                table.weight[0].zero_()

    def start_at_zero(self) -> None:
        """See `Network`."""
        super().start_at_zero()
        *_, last = self.user
        with torch.no_grad():
            for weights in (self.skip.weight, *last.parameters()):
                weights.zero_()

    def match(self, batch: Batch) -> Tensor:
        """See `Network`."""
        user_bd = self._users(batch)
        artwork_ad, bias_a = self._artworks(batch)
        product_c = (user_bd[batch.example_c] * artwork_ad[batch.artwork_c]).sum(dim=1)
        return product_c * artwork_ad.shape[1] ** -0.5 + bias_a[batch.artwork_c]

    def _artworks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns `[A, D]` vectors and `[A]` biases."""
        id_a = batch.id_a
        if self.training:
            id_a = id_a * (torch.rand(len(id_a)) >= self.id_dropout)
        text_ad = self.text(*batch.captions_a)
        return text_ad[:, :-1] + self.artwork(id_a), text_ad[:, -1] + self.artwork_bias(id_a)[:, 0]

    def _users(self, batch: Batch) -> Tensor:
        """Returns `[B, D]` vectors."""
        terms_id = self.text(*batch.name_terms_i)[:, :-1]
        item_id = self.name(batch.name_i) + terms_id + self.genre(*batch.genres_i)
        history_bd = history_mean(batch, self.attention, item_id)
        return self.skip(history_bd) + self.user(torch.cat([history_bd, item_id[batch.title_b]], dim=1))
