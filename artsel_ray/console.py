"""What a job needs of the terminal or pipe that it was started from: UTF-8, to outlive it, and to end when told to."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The time to stop Ray's processes and close files. They end with the job's process anyway.
_END_SECONDS = 10.0


def require_utf8() -> None:
    """Starts this process again in Python's UTF-8 mode if the locale has another encoding.

    Arguments, file names and what is printed are then UTF-8, here and in all processes that this one starts.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def end_on_signals() -> None:
    """Makes Ctrl-C, SIGTERM and SIGHUP raise `KeyboardInterrupt(128 + n)`, once, and end the process in any case.

    A signal that whoever started the process has ignored, as `nohup` does, stays ignored.
    """
    for each in _SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, _end)


def _end(signum: int, frame: object) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # the first one is being obeyed
    last = threading.Timer(_END_SECONDS, os._exit, [128 + signum])
    last.daemon = True
    last.start()
    raise KeyboardInterrupt(128 + signum)


# Control characters but line breaks and tabs, what changes the direction of text, line breaks of Unicode's own, notes
# between lines, and tags.
_CONTROL = (*range(9), *range(11, 32), *range(127, 160))
_DIRECTION = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x2070))
_OTHER = (0x2028, 0x2029, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080))
_INVISIBLE = dict.fromkeys((*_CONTROL, *_DIRECTION, *_OTHER), "\N{REPLACEMENT CHARACTER}")


def visible(text: str) -> str:
    """Returns text in which ids and names out of data cannot move a terminal's cursor, or reorder a line."""
    return text.translate(_INVISIBLE)


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """Passes on what is printed as `visible` gives it: lines of every kind may name columns, ids and URIs."""
    out, err = _Visible(sys.stdout), _Visible(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class _Visible:
    """A stream to which nothing but visible text is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # Libraries' progress bars go back to the start of their line first.
        start = "\r" if text.startswith("\r") else ""
        return self._stream.write(start + visible(text.removeprefix(start)))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """Lets a job go on when its output cannot be written: `| head`, a log collector that died, a full disk."""
    out, err = _Unbreakable(sys.stdout), _Unbreakable(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:  # what Python would else flush, and fail to, at its end
            out.flush()
            err.flush()


class _Unbreakable:
    """A stream whose file becomes the null device once it cannot be written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 (a process may start without one: `>&-`)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
