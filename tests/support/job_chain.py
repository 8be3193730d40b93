"""Runs several jobs' commands in one process: `python -m tests.support.job_chain jobs/a.py --x 1 jobs/b.py --y 2`.

The second job imports nothing again, which is most of a small job's time.
"""

import runpy
import sys
from itertools import pairwise


def run_jobs(words: list[str]) -> None:
    """Runs each command as `python` would; every word that begins with `jobs/` begins a command."""
    starts = [index for index, word in enumerate(words) if word.startswith("jobs/")]
    for start, end in pairwise([*starts, len(words)]):
        sys.argv = words[start:end]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    run_jobs(sys.argv[1:])
