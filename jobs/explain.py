"""Shows which user segment gets which artwork of a title, and why."""

from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.command_line import run

if __name__ == "__main__":
    run(ExplainConfig, "artsel_ray.audience.explain:explain")
