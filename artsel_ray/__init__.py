"""artsel-ray chooses, for each user, the artwork of a title that this user would most like."""

import os

# A Ray that a job has started for itself keeps its own files private. What its workers write is the user's again.
if _umask := os.environ.get("ARTSEL_RAY_UMASK"):  # runtime.own_ray
    os.umask(int(_umask, 8))
