"""Finds users whom none of a title's artworks suits, and has a model write a brief for one that would."""

from collections.abc import Callable

from artsel_ray.config import ProposeConfig, run


def job() -> Callable[[ProposeConfig], None]:
    from artsel_ray.audience.propose import propose
    from artsel_ray.report.titles import report_proposals

    def propose_and_report(config: ProposeConfig) -> None:
        propose(config)
        report_proposals(config)

    return propose_and_report


if __name__ == "__main__":
    run(ProposeConfig, job)
