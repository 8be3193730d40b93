"""The themes of simulated artworks, read from themes.toml."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Theme:
    """What an artwork can show and a user can like."""

    label: str
    genres: dict[str, float]
    """Weights of the genres that go with the theme."""
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    settings: tuple[str, ...]
    objects: tuple[str, ...]
    lights: tuple[str, ...]
    moods: tuple[str, ...]


def read_toml(name: str) -> dict[str, Any]:
    """Returns the content of a TOML file of this package."""
    return tomllib.loads(files(__package__).joinpath(name).read_text())


def _theme(entry: dict[str, Any]) -> Theme:
    words = {name: tuple(words) for name, words in entry.items() if isinstance(words, list)}
    return Theme(**entry | words)


THEMES = tuple(map(_theme, read_toml("themes.toml")["theme"]))
