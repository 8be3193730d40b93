"""MovieLens 100K: real viewing histories, titles, years and genres, fetched at run time and never stored."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from artsel_ray import packages
from artsel_ray.simulate.histories import Histories, Titles, Viewings
from artsel_ray.simulate.world import genre_themes

LICENSE = (
    "MovieLens 100K (GroupLens, University of Minnesota): for research only, not to be redistributed, "
    "not for commercial use without permission; see https://grouplens.org/datasets/movielens/100k/"
)
_PACKAGE = "recbole==1.2.1"
_FILES = ["ml-100k/ml-100k.inter", "ml-100k/ml-100k.item"]
_TASTE_SHARPNESS = 3.0


def movielens_histories(users: int | None, titles: int | None, themes: int) -> Histories:
    """Fetches MovieLens 100K with pip and returns its ratings as viewings.

    Args:
        users: number of users, those with the smallest ids; all 943 if None.
        titles: number of titles, the most watched; all 1,682 if None.
        themes: number of themes in titles and tastes.

    Raises:
        InputError: if the package cannot be fetched.
    """
    ratings_file, titles_file = packages.package_files(_PACKAGE, _FILES)
    ratings = _read(str(ratings_file))
    user, title = ratings["user_id:token"].to_numpy(), ratings["item_id:token"].to_numpy()
    keep = np.isin(user, np.unique(user)[:users])
    watched, counts = np.unique(title[keep], return_counts=True)
    kept_titles = np.sort(watched[np.lexsort((watched, -counts))][:titles])
    keep &= np.isin(title, kept_titles)
    user, title, seconds = user[keep], title[keep], ratings["timestamp:float"].to_numpy()[keep]
    order = np.lexsort((title, seconds, user))
    user_numbers, user_i = np.unique(user[order], return_inverse=True)
    title_i = np.searchsorted(kept_titles, title[order])
    kept = _titles(_read(str(titles_file)), kept_titles)
    themes_xt = genre_themes(kept.genres, themes)
    viewings = Viewings(
        user_ids=[f"ml{number}" for number in user_numbers.tolist()],
        taste_ut=_tastes(themes_xt, user_i, title_i),
        users=user_i,
        titles=title_i,
        seconds=seconds[order].astype(np.int64),
        watch_seconds=None,
    )
    return Histories(kept, themes_xt, iter([viewings]))


def _read(file: str) -> pa.Table:
    """Reads a tab-separated file, in which quotes have no meaning."""
    parse = pa_csv.ParseOptions(delimiter="\t", quote_char=False)
    types = {"release_year:token": pa.string(), "class:token_seq": pa.string(), "movie_title:token_seq": pa.string()}
    return pa_csv.read_csv(file, parse_options=parse, convert_options=pa_csv.ConvertOptions(column_types=types))


def _titles(items: pa.Table, numbers: np.ndarray) -> Titles:
    row_of = {number: row for row, number in enumerate(items["item_id:token"].to_pylist())}
    rows = items.take([row_of[number] for number in numbers.tolist()])
    names, years, genres = (rows[name].to_pylist() for name in items.column_names[1:])
    return Titles(
        title_ids=[f"ml{number}" for number in numbers.tolist()],
        names=names,
        years=[int(year) if year.isdigit() else None for year in years],
        genres=[[genre for genre in each.split() if genre != "unknown"] for each in genres],
    )


def _tastes(themes_xt: np.ndarray, users: np.ndarray, titles: np.ndarray) -> np.ndarray:
    """Returns what each user watched more of than others do, sharpened: [U, T]; rows sum to 1."""
    share_ut = np.zeros((users.max() + 1, themes_xt.shape[1]))
    np.add.at(share_ut, users, themes_xt[titles])
    share_ut /= share_ut.sum(axis=1, keepdims=True)
    taste_ut = (share_ut / share_ut.mean(axis=0)) ** _TASTE_SHARPNESS
    return taste_ut / taste_ut.sum(axis=1, keepdims=True)
