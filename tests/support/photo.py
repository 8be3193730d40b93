"""A photograph that comes with a library."""

from pathlib import Path

import matplotlib

PHOTO = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
