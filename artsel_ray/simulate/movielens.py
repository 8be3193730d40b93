"""MovieLens 100K: real viewing histories, titles, years and genres, fetched at run time and never kept."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from artsel_ray import packages

LICENSE = (
    "MovieLens 100K (GroupLens, University of Minnesota): for research only, not to be redistributed, "
    "not for commercial use without permission; see https://grouplens.org/datasets/movielens/100k/"
)
_PACKAGE = "recbole==1.2.1"
_FILES = ["ml-100k/ml-100k.inter", "ml-100k/ml-100k.item"]


@dataclass(frozen=True)
class MovieLens:
    """Ratings as interactions, and the titles rated."""

    title_ids: list[str]
    names: list[str]
    years: list[int | None]
    genres: list[list[str]]
    users: np.ndarray
    """[I] each interaction's user, 0 … U-1, ascending; within a user by time."""
    titles: np.ndarray
    """[I] each interaction's title, an index into `title_ids`."""
    seconds: np.ndarray
    """[I] time of the interaction, seconds since 1970."""
    user_ids: list[str]


def read_movielens(users: int | None, titles: int | None) -> MovieLens:
    """Fetches MovieLens 100K with pip and reads it.

    Args:
        users: only so many users, those with the smallest numbers; all 943 where not given.
        titles: only so many titles, the most watched; all 1,682 where not given.

    Raises:
        InputError: if the package cannot be had.
    """
    inter_file, item_file = packages.package_files(_PACKAGE, _FILES)
    inter, item = _read(str(inter_file)), _read(str(item_file))
    user, title = inter["user_id:token"].to_numpy(), inter["item_id:token"].to_numpy()
    keep = np.isin(user, np.unique(user)[:users])
    watched, counts = np.unique(title[keep], return_counts=True)
    kept_titles = np.sort(watched[np.lexsort((watched, -counts))][:titles])
    keep &= np.isin(title, kept_titles)
    user, title, seconds = user[keep], title[keep], inter["timestamp:float"].to_numpy()[keep]
    order = np.lexsort((title, seconds, user))
    rows = {number: row for row, number in enumerate(item["item_id:token"].to_pylist())}
    places = [rows[number] for number in kept_titles.tolist()]
    names, years, genres = (item[name].to_pylist() for name in item.column_names[1:])
    numbers, users_in_order = np.unique(user[order], return_inverse=True)
    return MovieLens(
        title_ids=[f"ml{number}" for number in kept_titles.tolist()],
        names=[names[place] for place in places],
        years=[int(years[place]) if years[place].isdigit() else None for place in places],
        genres=[[genre for genre in genres[place].split() if genre != "unknown"] for place in places],
        users=users_in_order,
        titles=np.searchsorted(kept_titles, title[order]),
        seconds=seconds[order].astype(np.int64),
        user_ids=[f"ml{number}" for number in numbers.tolist()],
    )


def _read(file: str) -> pa.Table:
    """Reads a tab-separated file; quotes have no meaning in it."""
    parse = pa_csv.ParseOptions(delimiter="\t", quote_char=False)
    types = {"release_year:token": pa.string(), "class:token_seq": pa.string(), "movie_title:token_seq": pa.string()}
    return pa_csv.read_csv(file, parse_options=parse, convert_options=pa_csv.ConvertOptions(column_types=types))
