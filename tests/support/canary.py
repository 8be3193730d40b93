"""A word in names, captions and histories, which no log, metric or error may repeat."""

from pathlib import Path

import ray

CANARY = "Qzxcanary"


def tells(text: bytes | str, word: str = CANARY) -> bool:
    """Returns whether a text contains the word, in any case."""
    return word.lower().encode() in (text.encode() if isinstance(text, str) else text).lower()


def logged(session: Path | None = None, word: str = CANARY) -> list[str]:
    """Returns Ray's files that contain the word, except the jobs' own code.

    Args:
        session: folder of a Ray session; by default of the Ray that this process is connected to.

    Raises:
        AssertionError: if the session has hardly any logs.
    """
    # Private in ray 2.60; the tests that call this fail when it changes.
    session = session or Path(ray._private.worker.global_worker.node.get_session_dir_path())
    files = [file for file in session.rglob("*") if file.is_file() and "working_dir_files" not in file.parts]
    assert sum("logs" in file.parts for file in files) > 10
    return [str(file) for file in files if tells(file.read_bytes(), word)]
