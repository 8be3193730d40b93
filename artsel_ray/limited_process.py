"""Runs what strangers have made (a chat template, a tokenizer's patterns) in a process of its own, with limits.

Nothing else stops it: a thread with a clock cannot, and signals reach main threads only.
"""

import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
from typing import Any

from artsel_ray.errors import one_line

_MEMORY_BYTES = 1 << 30  # more than what the process has once it has imported the function


class LimitError(Exception):
    """Why a call gave no result, as the end of a sentence: `takes more than 5 seconds`, `fails: …`."""


def call(function: str, seconds: int, *arguments: Any) -> Any:
    """Calls a function, `module:name`, in a process with limits; arguments and result are what JSON can hold.

    Args:
        seconds: of a CPU, so that a busy machine changes nothing; the function's module is imported before them.

    Raises:
        LimitError: if it exceeds a limit, raises, or ends its process.
    """
    # What this process can import, and nothing of the folder that it was started in.
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TOKENIZERS_PARALLELISM": "false"}
    request, command = json.dumps([function, seconds, arguments]), [sys.executable, "-P", "-m", __name__]
    done = subprocess.run(command, input=request.encode(), capture_output=True, env=os.environ | paths)
    if done.returncode == -signal.SIGXCPU:
        raise LimitError(f"takes more than {seconds} seconds")
    if done.returncode:
        raise LimitError("ends its process")
    problem, result = json.loads(done.stdout)
    if problem:
        raise LimitError(problem)
    return result


def _main() -> None:
    name, seconds, arguments = json.load(sys.stdin)
    function, problem, result = pkgutil.resolve_name(name), "", None
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no result
    _limit(seconds)
    try:
        result = function(*arguments)
    except MemoryError:
        problem = f"takes more than {_MEMORY_BYTES >> 20:,} MiB"
    except BaseException as error:  # noqa: BLE001  # panics of Rust are no Exception
        problem = f"fails: {one_line(error)}"
    with output:
        json.dump([problem, result], output)


def _limit(seconds: int) -> None:
    with open("/proc/self/statm") as file:
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    used_seconds = int(sum(os.times()[:2]))
    _lower(resource.RLIMIT_CPU, used_seconds + seconds)
    _lower(resource.RLIMIT_AS, used_bytes + _MEMORY_BYTES)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(limit: int, to: int) -> None:
    soft, hard = resource.getrlimit(limit)
    given = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(limit, (min([to, *given]), hard))


if __name__ == "__main__":
    _main()
