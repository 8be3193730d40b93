"""The table of decoders, by the names that --decoding takes."""

from artsel_ray.decoding.base import Decoder
from artsel_ray.decoding.freetext import FreeText
from artsel_ray.decoding.trie_decoders import Choose, Rank

DECODERS: dict[str, Decoder] = {
    "choose": Choose(),
    "rank": Rank(),
    "labels": Rank(output="number"),
    "freetext": FreeText(),
}
