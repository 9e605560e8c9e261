"""Ctrl-C in a training: noted for where nothing is torn, or raised at once where there is nothing to be torn."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Ctrl-C waits, whoever handles it, for what does not survive being torn: the import of a package, its compiler."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *signalled: came.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    for signalled in came[:1]:
        handler(*signalled)


class Interrupts:
    """What Ctrl-C does while `handled`, in the main thread and unless somebody else handles it.

    Attributes
    ----------
    came : bool
        Whether it was pressed and noted. The next one raises, whatever it tears.
    """

    def __init__(self, *, are_noted: bool) -> None:
        self.came = False
        self._are_noted = are_noted

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Within, Ctrl-C is this object's to handle."""
        is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not (is_usual and threading.current_thread() is threading.main_thread()):
            yield
            return
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextlib.contextmanager
    def noting(self, are_noted: bool) -> Iterator[None]:
        """Within, it is only noted, or raises KeyboardInterrupt, which what runs in the kernels notices, too."""
        before, self._are_noted = self._are_noted, are_noted
        try:
            if self.came and not are_noted:  # since anybody looked
                raise KeyboardInterrupt
            yield
        finally:
            self._are_noted = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came or not self._are_noted:
            signal.default_int_handler(number, frame)
        self.came = True
