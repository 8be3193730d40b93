"""The baseline's network: a user tower, an artwork tower, and a softmax over a title's candidates.

Suffixes: b examples of a batch, c candidates of all of them end to end, m most candidates, h history items end to
end, a distinct artworks, i distinct items, d width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from artsel_ray.baseline.encoding import BUCKETS, PAST_FEATURES


@dataclass(frozen=True)
class Sizes:
    """The network's shape: entries of the vocabulary, length of the vectors, share of ids hidden in training."""

    artworks: int
    names: int
    genres: int
    width: int
    id_dropout: float


class Towers(nn.Module):
    """Scores `user · artwork / √d + bias + popularity`, of which the softmax over the candidates is the choice.

    user: the history's items (name, its words, genres), weighted by a learned function of recency and watch time, and
    the title's own item. artwork: the caption's terms and the artwork's id, which is dropped at random in training, so
    that captions of artworks that nobody has seen are understood. popularity: a learned factor times the log of
    (engagements in train + a learned count).
    """

    def __init__(self, sizes: Sizes) -> None:
        """Draws the first weights with torch's global seed."""
        super().__init__()
        width = sizes.width
        self.id_dropout = sizes.id_dropout
        # The last column is a term's bias: in one table with the vectors it costs one lookup less.
        self.text = nn.EmbeddingBag(BUCKETS, width + 1, mode="sum", include_last_offset=True)
        self.artwork = nn.Embedding(sizes.artworks + 1, width, padding_idx=0)
        self.artwork_bias = nn.Embedding(sizes.artworks + 1, 1, padding_idx=0)
        self.name = nn.Embedding(sizes.names + 1, width, padding_idx=0)
        self.genre = nn.EmbeddingBag(sizes.genres + 1, width, mode="sum", include_last_offset=True)
        self.attention = nn.Linear(PAST_FEATURES, 1)
        self.user = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.skip = nn.Linear(width, width, bias=False)
        # Factor, and logarithm of the count that is added to every artwork's engagements.
        self.popularity = nn.Parameter(torch.tensor([1.0, 0.0]))
        for table in (self.text, self.artwork, self.name, self.genre):
            nn.init.normal_(table.weight, std=0.125)
        nn.init.zeros_(self.artwork_bias.weight)
        with torch.no_grad():
            self.text.weight[:, -1].zero_()
            for table in (self.artwork, self.name):
                table.weight[0].zero_()

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Returns `[B, M]` log-probabilities of the candidates in their order; -inf where there is none."""
        user_bd = self._users(batch)
        artwork_ad, bias_a = self._artworks(batch)
        owner_c, local_c = batch["owner_c"], batch["local_c"]
        match_c = (user_bd[owner_c] * artwork_ad[local_c]).sum(dim=1) * artwork_ad.shape[1] ** -0.5
        count_c = batch["engagements_a"][local_c] - batch["own_c"]
        popularity_c = self.popularity[0] * torch.log(count_c + self.popularity[1].exp())
        width = int(batch["place_c"].max()) + 1
        score_bm = torch.full((len(user_bd), width), -torch.inf)
        score_bm = score_bm.index_put((owner_c, batch["place_c"]), match_c + bias_a[local_c] + popularity_c)
        return score_bm.log_softmax(dim=1)

    def _artworks(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        id_a = batch["id_a"]
        if self.training:
            id_a = id_a * (torch.rand(len(id_a)) >= self.id_dropout)
        numbers, offsets, weights = batch["captions_a"]
        text_ad = self.text(numbers, offsets, weights)
        return text_ad[:, :-1] + self.artwork(id_a), text_ad[:, -1] + self.artwork_bias(id_a)[:, 0]

    def _users(self, batch: dict[str, Any]) -> Tensor:
        words_id = self.text(*batch["words_i"])[:, :-1]
        item_id = self.name(batch["name_i"]) + words_id + self.genre(*batch["genres_i"])
        owner_h, users = batch["owner_h"], len(batch["label_b"])
        weight_h = torch.exp(self.attention(batch["past_hf"])[:, 0].clamp(-15, 15))
        total_b = torch.zeros(users).index_add(0, owner_h, weight_h)
        share_h = weight_h / total_b[owner_h]
        past_bd = torch.zeros(users, item_id.shape[1]).index_add(
            0, owner_h, share_h[:, None] * item_id[batch["item_h"]]
        )
        return self.skip(past_bd) + self.user(torch.cat([past_bd, item_id[batch["title_b"]]], dim=1))
