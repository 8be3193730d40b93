"""Pairs to score as arrays: as examples are, but their candidates stand in a catalog, and nobody has engaged yet."""

from collections import Counter

import numpy as np
import pyarrow as pa

from artsel_ray.data.catalog import Catalog
from artsel_ray.network.encoding import ranges
from artsel_ray.network.example_arrays import Codes, ExampleArrays, history_arrays, joined_genres
from artsel_ray.prompts.histories import newest
from artsel_ray.schema import INVALID_ROWS


def pair_arrays(pairs: pa.Table, catalog: Catalog, history_length: int) -> ExampleArrays:
    """Returns the arrays of pairs; their labels are 0 and mean nothing.

    Args:
        pairs: `user_id`, `title_id`, `history` (newest last), and `title`, each one's index in the catalog.
        history_length: items of a history that count, the newest.
    """
    titles, title_n = np.unique(pairs["title"].to_numpy(), return_inverse=True)
    first_x, count_x = catalog.offsets[titles], np.diff(catalog.offsets)[titles]
    artworks = pa.array(ranges(first_x, count_x))
    within_x = np.cumsum(count_x) - count_x  # of each title's candidates among those of these titles
    items = Codes()
    names, genres = (column.take(pa.array(titles)) for column in (catalog.names, joined_genres(catalog.genres)))
    title_codes = items.codes(names, genres)[title_n]
    arrays = history_arrays(newest(pairs["history"].combine_chunks(), history_length), items)
    item_codes, item = np.unique(np.concatenate([title_codes, arrays.pop("item_codes_h")]), return_inverse=True)
    item_names, item_genres = items.strings(item_codes)
    count = pairs.num_rows
    return ExampleArrays(
        user_ids=pairs["user_id"].combine_chunks(), title_ids=pairs["title_id"].combine_chunks(),
        label_n=np.zeros(count, np.int64), candidates_n=count_x[title_n],
        artwork_c=ranges(within_x[title_n], count_x[title_n]), title_n=item[:count], item_h=item[count:],
        artwork_ids=catalog.artwork_ids.take(artworks),
        captions=catalog.contents.take(artworks).cast(pa.string()), names=item_names, genres=item_genres,
        propensity_n=np.full(count, np.nan), without_propensity=Counter(), invalid=INVALID_ROWS.empty_table(), **arrays,
    )  # fmt: skip
