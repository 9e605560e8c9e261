"""What a thread prepares, one ahead, while what comes before it is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Ahead:
    """A thread, from when there is something for it to do until it is closed."""

    def __init__(self) -> None:
        self._pool: Any = None

    def map(self, function: Callable[[T], R | None], values: Iterable[T]) -> Iterator[R]:
        """function(value) of one after the other, until it is None. When one is handed out, the next is begun."""
        futures = (self._begun(function, value) for value in values)
        future = next(futures, None)
        try:
            while future is not None and (found := future.result()) is not None:
                future = next(futures, None)
                yield found
        finally:
            if future is not None:
                future.cancel()

    def close(self) -> None:
        """End the thread, when what it prepares is there."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _begun(self, function: Callable[[T], R | None], value: T) -> Any:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # only here: `import elman` does without it

            self._pool = ThreadPoolExecutor(1, "elman-batches")
        return self._pool.submit(function, value)
