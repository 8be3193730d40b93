"""A word that stands in names, captions and histories, and that nothing but the tables may repeat."""

from pathlib import Path

import ray

CANARY = "Qzxcanary"


def tells(text: bytes | str, word: str = CANARY) -> bool:
    """Returns whether a text has the word in it, in whatever case."""
    return word.lower().encode() in (text.encode() if isinstance(text, str) else text).lower()


def logged(session: Path | None = None, word: str = CANARY) -> list[str]:
    """Returns Ray's files that have the word in them; the jobs' own code does not count.

    Args:
        session: by default of the Ray that this process is connected to.

    Raises:
        AssertionError: if there are hardly any logs to look at.
    """
    session = session or Path(ray._private.worker.global_worker.node.get_session_dir_path())
    files = [file for file in session.rglob("*") if file.is_file() and "working_dir_files" not in file.parts]
    assert sum("logs" in file.parts for file in files) > 10
    return [str(file) for file in files if tells(file.read_bytes(), word)]
