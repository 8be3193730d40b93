"""Shows which taste gets which artwork of a title, and why."""

from collections.abc import Callable

from artsel_ray.config import ExplainConfig, run


def job() -> Callable[[ExplainConfig], None]:
    from artsel_ray.audience.explain import explain
    from artsel_ray.report.titles import report_user_segments

    def explain_and_report(config: ExplainConfig) -> None:
        explain(config)
        report_user_segments(config)

    return explain_and_report


if __name__ == "__main__":
    run(ExplainConfig, job)
