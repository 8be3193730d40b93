"""The settings of the jobs, for tests that parse command lines out of pages and cluster files."""

import importlib
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_IMPORT = re.compile(r"^from (artsel_ray\.\w+\.settings) import (\w+Config)$", re.MULTILINE)


def config_type(job: str) -> type[Any]:
    """Returns the config class that `jobs/JOB.py` imports."""
    ((module, name),) = _IMPORT.findall((ROOT / "jobs" / f"{job}.py").read_text())
    return getattr(importlib.import_module(module), name)
