"""Out-of-fold predictions of the train examples: by networks that have not seen the example's title."""

import dataclasses

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.network.encoding import ranges
from artsel_ray.network.example_arrays import ExampleArrays, IntArray


def fold_n(rows: ExampleArrays, folds: int, workers: int, uri: str) -> IntArray:
    """Returns each example's fold, which depends on its title alone: [N].

    Raises:
        InputError: if a fold would be empty, or all others together have fewer examples than workers.
    """
    titles = rows.title_ids.dictionary_encode()
    of_title = np.array([int(storage.fingerprint(each), 16) % folds for each in titles.dictionary.to_pylist()])
    found = of_title[titles.indices.to_numpy()]
    if len(np.unique(found)) < folds:
        raise InputError(f"{uri} has {len(of_title)} titles, too few for --folds {folds}; lower it, or leave it out")
    if len(found) - np.bincount(found).max() < workers:
        raise InputError(
            f"{uri} without a fold has fewer examples than --workers {workers}; use fewer workers or folds"
        )
    return found


def subset(rows: ExampleArrays, picked: IntArray) -> ExampleArrays:
    """Returns some of the examples, with only the artworks and items that they have.

    Args:
        picked: their indices, ascending.
    """
    first_n, oldest_n = (np.cumsum(count_n) - count_n for count_n in (rows.candidates_n, rows.history_n))
    candidate_c = ranges(first_n[picked], rows.candidates_n[picked])
    history_h = ranges(oldest_n[picked], rows.history_n[picked])
    artworks, artwork_c = np.unique(rows.artwork_c[candidate_c], return_inverse=True)
    items, item = np.unique(np.concatenate([rows.title_n[picked], rows.item_h[history_h]]), return_inverse=True)
    taken = pa.array(picked)
    return dataclasses.replace(
        rows,
        user_ids=rows.user_ids.take(taken), title_ids=rows.title_ids.take(taken), label_n=rows.label_n[picked],
        candidates_n=rows.candidates_n[picked], artwork_c=artwork_c, title_n=item[: len(picked)],
        history_n=rows.history_n[picked], item_h=item[len(picked) :], age_days_h=rows.age_days_h[history_h],
        watch_seconds_h=rows.watch_seconds_h[history_h], artwork_ids=rows.artwork_ids.take(pa.array(artworks)),
        captions=rows.captions.take(pa.array(artworks)), names=rows.names.take(pa.array(items)),
        genres=rows.genres.take(pa.array(items)), propensity_n=rows.propensity_n[picked],
    )  # fmt: skip
