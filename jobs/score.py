"""Chooses an artwork for every user-title pair of the requests, or estimates what that costs."""

from artsel_ray.command_line import run
from artsel_ray.score.settings import ScoreConfig

if __name__ == "__main__":
    run(ScoreConfig, "artsel_ray.score.job:score")
