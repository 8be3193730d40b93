"""Trains once for each learning rate and keeps the best model."""

from collections.abc import Callable

from artsel_ray.config import SweepConfig, run


def job() -> Callable[[SweepConfig], None]:
    from artsel_ray.report.sweep import report_sweep
    from artsel_ray.train.sweep import sweep

    def sweep_and_report(config: SweepConfig) -> None:
        sweep(config)
        report_sweep(config.output)

    return sweep_and_report


if __name__ == "__main__":
    run(SweepConfig, job)
