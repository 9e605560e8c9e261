"""Functions of arrays in Python as operations of a program that XLA has compiled, without copies.

That is what `jax.pure_callback` is for, which takes half a millisecond a call, as long as the kernels do. XLA's
interface for foreign functions hands out pointers instead. The structures are those of the file xla/ffi/api/c_api.h
that JAX brings along, and as there begin with their size and a list of extensions.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]
_DTYPES = {1: np.dtype(np.bool_), 11: np.dtype(np.float32), 12: np.dtype(np.float64)}
_METADATA, _EXECUTE, _INTERNAL_ERROR, _VERSION = 1, 3, 13, 0
_HEAD: list[Any] = [("size", c_size_t), ("extension", c_void_p)]


class _Version(ctypes.Structure):
    _fields_ = [*_HEAD, ("major", c_int), ("minor", c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("version", _Version), ("traits", ctypes.c_uint32), ("state_type", c_int64)]


class _Extension(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", POINTER(_Metadata))]


class _Error(ctypes.Structure):
    _fields_ = [*_HEAD, ("message", c_char_p), ("code", c_int)]


class _Api(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("version", _Version),
        ("internal", c_void_p),
        ("create_error", ctypes.CFUNCTYPE(c_void_p, POINTER(_Error))),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [*_HEAD, ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("shape", POINTER(c_int64))]

    def array(self) -> NDArray[Any]:
        shape, dtype = tuple(self.shape[: self.rank]), _DTYPES[self.dtype]
        memory = (ctypes.c_char * (dtype.itemsize * math.prod(shape))).from_address(self.data)
        return np.ndarray(shape, dtype, memory)


class _Buffers(ctypes.Structure):
    _fields_ = [*_HEAD, ("n", c_int64), ("types", c_void_p), ("each", POINTER(POINTER(_Buffer)))]

    def arrays(self) -> Arrays:
        return [self.each[i].contents.array() for i in range(self.n)]


class _Span(ctypes.Structure):
    _fields_ = [("text", c_void_p), ("length", c_size_t)]


class _Attributes(ctypes.Structure):
    _fields_ = [*_HEAD, ("n", c_int64), ("types", c_void_p), ("names", c_void_p), ("each", POINTER(POINTER(_Span)))]


class _Frame(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("given", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    ]


_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
_handlers: list[Any] = []  # for as long as the process


def operation(name: str, run: Callable[[str, Arrays, Arrays], None]) -> Callable[..., Any]:
    """What calls `run`, with a text, the arrays that are given, and those that it has to write.

    It takes that text, the results as `jax.ShapeDtypeStruct`, and the arrays.
    """

    def handle(pointer: Any) -> int | None:
        frame = pointer.contents
        try:
            if frame.extension and (extension := _Extension.from_address(frame.extension)).type == _METADATA:
                _say_version(frame, extension.metadata.contents)
            elif frame.stage == _EXECUTE:
                span = frame.attributes.each[0].contents
                run(ctypes.string_at(span.text, span.length).decode(), frame.given.arrays(), frame.results.arrays())
        except BaseException as error:  # which would be lost here
            with contextlib.suppress(Exception):
                message = f"{name}: {error!r}".encode()
                created = _Error(ctypes.sizeof(_Error), None, message, _INTERNAL_ERROR)
                return frame.api.contents.create_error(ctypes.byref(created))  # type: ignore[no-any-return]
            raise
        return None

    _handlers.append(_Handler(handle))
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(_handlers[-1]), platform="cpu")

    def call(text: str, results: Any, given: Any) -> Any:
        return jax.ffi.ffi_call(name, results, vmap_method="sequential")(*given, text=text)

    return call


def _say_version(frame: Any, metadata: Any) -> None:
    """That of the interface: any one with the structures above."""
    theirs = frame.api.contents.version
    if theirs.major != _VERSION:
        raise RuntimeError(f"XLA's interface for foreign functions must have version {_VERSION}, got {theirs.major}")
    metadata.version.major, metadata.version.minor, metadata.traits = theirs.major, theirs.minor, 0
