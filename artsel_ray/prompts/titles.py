"""A title of the catalog as prompt segments: its line and its candidates."""

from typing import TYPE_CHECKING

from artsel_ray.data.images import UnusableError, read_all
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import Options, PromptTokenizer

if TYPE_CHECKING:  # the catalog validates images on Ray, which prompts know nothing of
    from artsel_ray.data.catalog import Catalog


def tokenize_title(tokenizer: PromptTokenizer, catalog: "Catalog", title: int) -> Options:
    """Tokenizes a title, given by its index in the catalog, with its candidates.

    Raises:
        InputError: if an image that was valid when the catalog was read is not now.
    """
    artworks = slice(*catalog.offsets[title : title + 2].tolist())
    name, genres = catalog.names[title].as_py(), catalog.genres[title].as_py()
    contents = catalog.contents[artworks].to_pylist()
    if tokenizer.placeholders is None:
        return tokenizer.options(name, genres, contents)
    try:
        images = read_all(contents, tokenizer.spec.resize_to_pixels)
    except UnusableError as error:
        title_id = catalog.title_ids[title].as_py()
        raise InputError(
            f"an image of title {title_id} was valid when the run started and is not now: {error}"
        ) from None
    return tokenizer.image_options(name, genres, images)
