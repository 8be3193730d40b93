"""Finds users whom none of a title's artworks suits, and has a model write a brief for one that would."""

from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.command_line import run

if __name__ == "__main__":
    run(ProposeConfig, "artsel_ray.audience.propose:propose")
