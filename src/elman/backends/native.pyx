# cython: language_level=3, freethreading_compatible=True, embedsignature=False
"""The door to the kernels: arrays in, C structures out with the GIL released; no mathematics here.

The functions are those of `elman.backends.reference`, which documents them: the backend "cython" on the kernels of
csrc/, and a `Door` for kernels that are made elsewhere. Arrays are NumPy's; none reaches a kernel that `Call` has not
held against what the contract says of it (contract.py, wall.py).
"""

import importlib.util
import os
from operator import index
from threading import get_ident, main_thread
from typing import get_args

from elman.backends import contract
from elman.backends.wall import refuse

import numpy as np

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset

cdef extern from "Python.h":
    PyObject *item_of "PyTuple_GetItem"(object values, Py_ssize_t i) except NULL

cdef extern from *:
    """
    /* How NumPy's arrays begin. It is the same in all its versions since 1.7, as the macros of its headers read it, too;
     * the buffer protocol takes as long for each array as a small kernel. */
    typedef struct {
        PyObject_HEAD
        char *data;
        int nd;
        Py_ssize_t *dimensions, *strides;
        PyObject *base, *descr;
        int flags;
    } elman_ndarray;
    """
    ctypedef struct elman_ndarray:
        char *data
        int nd
        Py_ssize_t *dimensions
        Py_ssize_t *strides
        PyObject *descr
        int flags

cdef extern from "elman.h" nogil:
    ctypedef struct elman_rows:
        void *data
        Py_ssize_t t_stride, b_stride

    ctypedef struct elman_named:
        const char *name
        const void *address

    ctypedef struct elman_cell:
        const char *name
        const elman_named *activations
        size_t has_numbers, has_second, has_carry, state_is_second

    ctypedef void elman_add_noise(const int64_t *, size_t, const size_t *, size_t, size_t, size_t, size_t, const void *, const void *) noexcept nogil

    ctypedef struct elman_layer:  # what is not set by name
        size_t T, B, I, H, D
        const void *own
        const void *epilogues
        const elman_cell *cell
        elman_add_noise *add_noise
        int64_t reverse, has_tokens
        const int64_t *lengths
        elman_rows x, y, second, dropped, resets, d_x
        double dropout
        int64_t layer, first_step
        const void *h_0
        const void *weight_ih
        const void *weight_hh
        const void *bias
        const void *numbers
        const void *noise
        const int64_t *keys
        const void *h_reset
        void *carry
        void *d_numbers
        void *d_noise
        void *d_h_reset

    ctypedef struct elman_readout:
        size_t T, B, K, O
        const void *own
        int64_t loss
        double scale
        const int64_t *lengths
        elman_rows h, target, weights, d_h
        void *d_weight
        void *d_bias

    ctypedef struct elman_generation:
        size_t L, N, top_k, rank, n_fed, n_uniforms
        const elman_layer *layers
        const elman_readout *readout
        void *drawn
        void *outputs
        const void *beside
        const void *affine
        const double *uniforms
        double temperature, top_p
        int64_t end, law

    ctypedef struct elman_update:
        size_t n
        void *parameters
        const void *gradient
        void *const *memories
        const double *numbers

    ctypedef struct elman_plan:
        size_t threads, shards, parts, rows, panels, width, tiles, height, is_packed, block_steps, vector_reals
        double cycles

    ctypedef struct elman_rule:
        const char *name
        const void *task
        size_t least_memories, most_memories, numbers

    ctypedef struct elman_kernels:
        int (*forward)(const elman_layer *) noexcept nogil
        int (*backward)(const elman_layer *) noexcept nogil
        int (*readout)(const elman_readout *) noexcept nogil
        int (*readout_loss)(const elman_readout *, double *) noexcept nogil
        int (*clip_norm)(size_t, void *, double, double *) noexcept nogil
        void (*update)(const elman_update *, const void *) noexcept nogil
        void (*recurrent_mask)(size_t, size_t, size_t, double, uint64_t, size_t, void *) noexcept nogil
        int (*normals)(size_t, size_t, size_t, const elman_rows *, const int64_t *, size_t, size_t) noexcept nogil
        elman_add_noise *add_noise
        int (*generate)(const elman_kernels *, const elman_generation *, int64_t *) noexcept nogil
        int (*plan)(const elman_layer *, int, size_t, elman_plan *) noexcept nogil
        void (*transpose)(size_t, size_t, const void *, void *) noexcept nogil
        double (*multiply_adds)(size_t) noexcept nogil
        const elman_cell *cells
        const elman_rule *rules
        size_t vector_bytes, is_fused
        const void *own

    cdef enum:
        ELMAN_CROSS_ENTROPY
        ELMAN_BINARY_CROSS_ENTROPY

    ctypedef struct elman_field:
        const char *name
        size_t offset

    const elman_kernels *elman_table(const char *instruction_set, int is_double)
    const char *elman_best()
    const char *elman_sets[]
    size_t elman_cache_size(int level)
    void elman_set_cache_size(int level, size_t n_bytes)
    const elman_field elman_layer_fields[]
    const elman_field elman_readout_fields[]
    const elman_field elman_update_fields[]

cdef extern from "pool.h" nogil:
    void elman_run(void (*task)(void *, size_t) noexcept nogil, void *context, size_t n, size_t threads)
    int elman_run_team(void (*task)(void *, size_t) noexcept nogil, void *context, size_t n)
    int elman_meet(size_t *come, size_t expected)
    ctypedef struct elman_call:
        int reason
    void elman_begin(elman_call *call)
    int elman_end(elman_call *call)
    void elman_stop(int reason)
    int elman_stopped()
    void elman_set_poll(int (*poll)() noexcept nogil)
    int ELMAN_NO_MEMORY, ELMAN_INTERRUPTED, ELMAN_RAISED
    void elman_set_num_threads(int n)
    void elman_bound_threads(int n)
    int elman_get_num_threads()
    void *elman_lease(size_t size)
    void elman_return(void *block)


def set_num_threads(n: int) -> None:
    elman_set_num_threads(n)


def bound_threads(n: int) -> None:
    elman_bound_threads(n)


def get_num_threads() -> int:
    return elman_get_num_threads()


def cache_sizes() -> tuple:
    """Bytes of the caches of level 1 and 2 and of the last one, which say how work is divided (csrc/plan.h)."""
    return tuple(elman_cache_size(level) for level in (1, 2, 3))


def use_cache_sizes(*sizes: int) -> None:
    """Divide work as if the caches had these sizes; 0: this machine's own. Results keep their bits."""
    if not all(n_bytes == 0 or n_bytes >= 4096 for n_bytes in sizes):
        raise ValueError(f"sizes: expected 0, or at least 4096 bytes, got {sizes}")
    for level, n_bytes in enumerate(sizes, 1):
        elman_set_cache_size(level, n_bytes)


def pool_addresses() -> dict:
    """The functions of the thread pool, and what else of C the kernels need that are compiled at run time, by their
    C names."""
    return {
        "elman_run": <size_t>&elman_run,
        "elman_run_team": <size_t>&elman_run_team,
        "elman_meet": <size_t>&elman_meet,
        "elman_begin": <size_t>&elman_begin,
        "elman_end": <size_t>&elman_end,
        "elman_stop": <size_t>&elman_stop,
        "elman_stopped": <size_t>&elman_stopped,
        "elman_cache_size": <size_t>&elman_cache_size,
        "elman_get_num_threads": <size_t>&elman_get_num_threads,
        "elman_lease": <size_t>&elman_lease,
        "elman_return": <size_t>&elman_return,
    }


cdef object interruption = None  # what a signal's handler raised


cdef int interrupted() noexcept with gil:
    """What the pool asks on the thread that called (pool.h): signals are answered here, as between two lines of Python."""
    global interruption
    try:
        if get_ident() != main_thread().ident:
            return -1  # Python answers signals on its main thread alone
        PyErr_CheckSignals()
    except BaseException as error:
        interruption = error
        return 1
    return 0


elman_set_poll(&interrupted)


cdef int check(int status, activation=None) except -1:
    """Raise what stands behind the status that a kernel returned (pool.h), if it is not 0."""
    global interruption
    if not status:
        return 0
    if interruption is not None and get_ident() == main_thread().ident:  # whatever else has happened
        error, interruption = interruption, None
        raise error
    if status == ELMAN_RAISED:
        raise RuntimeError(
            f"nonlinearity {activation}: its f or df raised an exception; the backend 'numpy' says which"
        )
    raise MemoryError("no memory for the kernels' scratch")


cdef enum:  # what is expected of an array besides its extents
    BLOCK = 0  # reals, C-contiguous
    ROWS = 1  # reals, of any strides but one on the last axis
    STEPS = 2  # of any strides
    INTEGERS = 4
    OUT = 8
    TOKENS = 16  # may be integers of any strides, without the last axis
    OPTIONAL = 32
    FORWARD_ALONE = 64  # backward does not look at it
    INTEGER = 128  # no array but a number, and the same for a float
    REAL = 256
    BOOLEANS = 512

cdef enum:
    WRITEABLE = 0x400  # of an array's flags

cdef enum:  # of elman.backends.wall
    NO_ARRAY = 1, DTYPE, SHAPE, STRIDES, ALIGNMENT, READ_ONLY, VALUES

cdef enum:
    ANY = 0  # an extent that is the array's to say
    PRODUCT = -1  # D * H

cdef dict NUMBERS_OF = {bool: INTEGER, int: INTEGER, float: REAL}
cdef dict KINDS = {"rows": ROWS, "steps": STEPS, "integers": INTEGERS, "booleans": BOOLEANS, "out": OUT, "tokens": TOKENS, "forward": FORWARD_ALONE}

cdef struct Field:
    int kind, ndim, number  # its place in the object
    Py_ssize_t offset  # where it goes in the structure
    Py_ssize_t extents[3]  # where sizes stand in the structure, or PRODUCT
    PyObject *usual  # what it is unless it is given


cdef enum:  # what there is room for
    MOST_FIELDS = 32  # arrays and numbers of one of the contract's objects
    MOST_MEMORIES = 4
    MOST_NUMBERS = 8


cdef class Fields:
    """The arrays and numbers of one of the contract's objects, and where they go in its structure."""

    cdef Field own[MOST_FIELDS]
    cdef int n
    cdef readonly tuple names
    cdef readonly dict offsets

    def __init__(self, kind, offsets):
        self.names, self.offsets = kind._fields, offsets
        for number, (name, hint) in enumerate(kind.__annotations__.items()):
            if hint not in NUMBERS_OF and not hasattr(hint, "__metadata__"):
                continue
            if self.n == MOST_FIELDS:
                raise ValueError(f"{kind.__name__}: expected at most {MOST_FIELDS} arrays and numbers")
            f = &self.own[self.n]
            self.n += 1
            f.number, f.offset, f.kind = number, offsets[name], NUMBERS_OF.get(hint, 0)
            usual = kind._field_defaults.get(name, kind)
            f.usual = <PyObject *>usual  # which lives as long as its class
            if f.kind:
                continue
            words = hint.__metadata__[0].split()
            extents = [word for word in words if word not in KINDS]
            f.ndim, f.kind = len(extents), sum(KINDS[word] for word in words if word in KINDS)
            if type(None) in get_args(hint.__origin__):
                f.kind |= OPTIONAL
            for i, extent in enumerate(extents):
                f.extents[i] = PRODUCT if extent == "DH" else offsets[extent]


cdef dict offsets_of(const elman_field *field):
    result = {}
    while field.name != NULL:
        result[field.name.decode()] = field.offset
        field += 1
    return result


cdef Fields LAYER = Fields(contract.Layer, offsets_of(elman_layer_fields))
cdef Fields GRADIENTS = Fields(contract.Gradients, offsets_of(elman_layer_fields))
cdef Fields READOUT = Fields(contract.Readout, offsets_of(elman_readout_fields))
OFFSETS = {"layer": LAYER.offsets, "readout": READOUT.offsets, "update": offsets_of(elman_update_fields)}
cdef int ACTIVATION, CELL
ACTIVATION, CELL = map(contract.Layer._fields.index, ("activation", "cell"))
cdef str ELMAN = contract.Layer._field_defaults["cell"]
cdef dict LOSSES = {name: i for i, name in enumerate(contract.LOSSES)}
cdef dict LAWS = {name: i for i, name in enumerate(contract.LAWS)}


cdef object ndarray = np.ndarray, FLOAT32 = np.dtype(np.float32), FLOAT64 = np.dtype(np.float64), INT64 = np.dtype(np.int64), BOOL = np.dtype(np.bool_)


cdef struct View:  # of an array, as it was when it was looked at
    void *data
    int ndim
    char dtype  # 'f', 'd', 'l' for int64, '?' for bool, or 0
    bint is_writeable
    Py_ssize_t itemsize
    Py_ssize_t shape[3]
    Py_ssize_t strides[3]


cdef char dtype_of(descr) except? 0:
    """Nearly always NumPy's own object; what is equal to it, such as one that has been unpickled, is as good."""
    if descr is FLOAT32:
        return b"f"
    if descr is FLOAT64:
        return b"d"
    if descr is INT64:
        return b"l"
    if descr is BOOL:
        return b"?"
    return b"f" if descr == FLOAT32 else b"d" if descr == FLOAT64 else b"l" if descr == INT64 else b"?" if descr == BOOL else 0


cdef int look(array, View *view) except -1:
    """Describe a NumPy array; 0 for anything else. Whoever calls has a reference to it as long as the view is used."""
    if not PyObject_TypeCheck(array, <PyTypeObject *>ndarray):  # `isinstance` believes what claims to be one
        return 0
    cdef elman_ndarray *fields = <elman_ndarray *><PyObject *>array
    cdef int i
    view.data, view.ndim = fields.data, fields.nd
    for i in range(min(view.ndim, 3)):  # of more, there is nothing to be done with
        view.shape[i], view.strides[i] = fields.dimensions[i], fields.strides[i]
    view.dtype = dtype_of(<object>fields.descr)
    view.itemsize = 4 if view.dtype == b"f" else 1 if view.dtype == b"?" else 8
    view.is_writeable = (fields.flags & WRITEABLE) != 0
    return 1


def check_layout() -> None:
    """Refuse to run with a NumPy whose arrays lie otherwise, rather than read anything."""
    array = np.zeros((3, 2), np.float32)[1:, :1]
    cdef elman_ndarray *fields = <elman_ndarray *><PyObject *>array
    is_known = <size_t>fields.data == array.ctypes.data and fields.nd == 2 and <PyObject *>array.dtype == fields.descr
    is_known = is_known and (fields.dimensions[0], fields.dimensions[1]) == array.shape
    is_known = is_known and (fields.strides[0], fields.strides[1]) == array.strides and fields.flags & WRITEABLE
    array.flags.writeable = False
    if not is_known or fields.flags & WRITEABLE:
        raise ImportError(f"this elman does not know the arrays of NumPy {np.__version__}: install another of the two")


check_layout()


cdef class Call:
    """The arrays of one call, each of which is held against the others before it becomes a pointer."""

    cdef View view  # the last one
    cdef double numbers[MOST_NUMBERS]
    cdef char dtype  # of all reals: 'f' or 'd'

    cdef int fault(self, array, int kind, int ndim, const Py_ssize_t *expected) except -1:
        """The wall: dtype, extents, strides, alignment, and that outputs can be written to."""
        cdef View *view = &self.view
        if not look(array, view):
            return NO_ARRAY
        cdef Py_ssize_t size = view.itemsize, unit = size
        cdef int i
        if kind & INTEGERS:
            if view.dtype != b"l":
                return DTYPE
        elif kind & BOOLEANS:
            if view.dtype != b"?":
                return DTYPE
        else:
            if self.dtype == 0 and (view.dtype == b"f" or view.dtype == b"d"):
                self.dtype = view.dtype
            if view.dtype == 0 or view.dtype != self.dtype:
                return DTYPE
        if view.ndim != ndim:
            return SHAPE
        for i in range(ndim):
            if view.shape[i] < 1 or (expected[i] != ANY and view.shape[i] != expected[i]):
                return SHAPE
        if <size_t>view.data % <size_t>size:
            return ALIGNMENT
        for i in range(ndim - 1, -1, -1):
            if view.shape[i] > 1:  # else its stride leads nowhere
                if view.strides[i] != unit and not (kind & STEPS or (kind & ROWS and i < ndim - 1)):
                    return STRIDES
                if view.strides[i] % size:
                    return ALIGNMENT
            unit *= view.shape[i]
        return READ_ONLY if kind & OUT and not view.is_writeable else 0

    cdef void *block(self, array, name, int kind, int ndim, Py_ssize_t n0, Py_ssize_t n1=1, Py_ssize_t n2=1) except? NULL:
        """A contiguous array, or NULL for None."""
        if array is None and kind & OPTIONAL:
            return NULL
        cdef Py_ssize_t *expected = [n0, n1, n2]
        cdef int fault = self.fault(array, kind, ndim, expected)
        if fault:
            refuse(name, fault, array)
        return self.view.data

    cdef double *take_numbers(self, numbers) except NULL:
        cdef int i
        if len(numbers) > MOST_NUMBERS:
            raise ValueError(f"numbers: expected at most {MOST_NUMBERS}; got {len(numbers)}")
        for i, number in enumerate(numbers):
            self.numbers[i] = number
        return self.numbers

    cdef int take(self, Fields fields, values, char *structure, bint reads_out=False) except -1:
        """Bring an object's arrays and numbers into its structure, whose sizes the first array that has them says.

        Numbers that are not given stand there already. With `reads_out`, what another function writes is only read.
        Returns whether there are tokens.
        """
        cdef Field *f
        cdef View *view = &self.view
        cdef Py_ssize_t expected[3]
        cdef elman_rows *rows
        cdef int i, k, kind, ndim, fault, has_tokens = 0
        for i in range(fields.n):
            f = &fields.own[i]
            array = <object>item_of(values, f.number)
            if f.kind & (INTEGER | REAL):
                if <PyObject *>array != f.usual:
                    put_number(f, fields.names[f.number], structure, array)
                continue
            if (array is None and f.kind & OPTIONAL) or (reads_out and f.kind & FORWARD_ALONE):
                continue
            kind, ndim = f.kind, f.ndim
            if kind & TOKENS and look(array, view) and view.ndim == ndim - 1:
                kind, ndim, has_tokens = INTEGERS | STEPS, ndim - 1, 1
            if reads_out:
                kind &= ~OUT
            for k in range(ndim):
                expected[k] = size_at(structure, f.extents[k])[0] if f.extents[k] >= 0 else product(<elman_layer *>structure)
            fault = self.fault(array, kind, ndim, expected)
            if fault:
                refuse(fields.names[f.number], fault, array)
            for k in range(ndim):
                if f.extents[k] >= 0:
                    size_at(structure, f.extents[k])[0] = view.shape[k]
            if kind & (ROWS | STEPS):
                rows = <elman_rows *>(structure + f.offset)
                rows.data = view.data
                rows.t_stride, rows.b_stride = view.strides[0] // view.itemsize, view.strides[1] // view.itemsize
            else:
                (<void **>(structure + f.offset))[0] = view.data
        return has_tokens


cdef int put_number(const Field *f, name, char *structure, number) except -1:
    if f.kind & REAL:
        (<double *>(structure + f.offset))[0] = number
    else:
        (<uint64_t *>(structure + f.offset))[0] = natural(name, number)
    return 0


cdef uint64_t natural(name, number) except? 0:
    try:
        return index(number)
    except (OverflowError, TypeError):
        raise ValueError(f"{name}: expected an integer from 0 to 2^64 - 1; got {number}") from None


cdef Py_ssize_t *size_at(char *structure, Py_ssize_t offset) noexcept:
    return <Py_ssize_t *>(structure + offset)


cdef Py_ssize_t product(const elman_layer *layer) noexcept:
    return layer.D * layer.H


cdef int check_lengths(const int64_t *lengths, int64_t T, size_t B, array) except -1:
    cdef size_t b
    if lengths != NULL:
        for b in range(B):
            if not 0 <= lengths[b] <= T:
                refuse("lengths", VALUES, array)
    return 0


cdef bint are_within(const elman_rows *rows, size_t T, size_t B, const int64_t *lengths, int64_t n) noexcept:
    """Whether tokens (T, B) are from 0 to n - 1 within the lengths."""
    cdef size_t t, b
    cdef const int64_t *at
    for t in range(T):
        at = <const int64_t *>rows.data + <Py_ssize_t>t * rows.t_stride
        for b in range(B):
            if (lengths == NULL or <int64_t>t < lengths[b]) and not 0 <= at[0] < n:
                return False
            at += rows.b_stride
    return True


cdef bint have_targets(const elman_readout *r, char dtype) noexcept:
    """Whether the categories of all steps with a weight are below O; negative ones are none."""
    cdef size_t t, b
    cdef Py_ssize_t w
    for t in range(r.T):
        for b in range(r.B):
            if r.lengths != NULL and <int64_t>t >= r.lengths[b]:
                continue
            if (<const int64_t *>r.target.data)[<Py_ssize_t>t * r.target.t_stride + <Py_ssize_t>b * r.target.b_stride] < <int64_t>r.O:
                continue
            w = <Py_ssize_t>t * r.weights.t_stride + <Py_ssize_t>b * r.weights.b_stride
            if r.weights.data == NULL or (
                (<const double *>r.weights.data)[w] if dtype == b"d" else (<const float *>r.weights.data)[w]
            ) != 0:
                return False
    return True


cdef elman_layer PLAIN_LAYER  # all numbers as by default, and nothing else
cdef elman_readout PLAIN_READOUT
cdef tuple NO_LOSS = tuple(contract.Readout._field_defaults.values())  # what follows h, weight, bias and o


cdef int put_usual_numbers(Fields fields, char *structure) except -1:
    cdef int i
    for i in range(fields.n):
        if fields.own[i].kind & (INTEGER | REAL):
            put_number(&fields.own[i], fields.names[fields.own[i].number], structure, <object>fields.own[i].usual)
    return 0


memset(&PLAIN_LAYER, 0, sizeof(PLAIN_LAYER))
memset(&PLAIN_READOUT, 0, sizeof(PLAIN_READOUT))
put_usual_numbers(LAYER, <char *>&PLAIN_LAYER)
put_usual_numbers(READOUT, <char *>&PLAIN_READOUT)


cdef int check_dropout(double p, int64_t layer, int64_t first_step, int64_t T) except -1:
    """The probability, and that places are words of 32 bits."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: expected a probability from 0 to 1; got {p}")
    if not 0 <= layer < 1 << 30:
        raise ValueError(f"layer: expected a number from 0 to 2^30 - 1; got {layer}")
    if not 0 <= first_step <= (<int64_t>1 << 32) - T:
        raise ValueError(f"first_step: expected a step from 0 on, of at most 2^32 with T; got {first_step}")
    return 0


cdef int take_layer(Call call, elman_layer *l, layer, bint reads_out) except -1:
    l[0] = PLAIN_LAYER
    l.has_tokens = call.take(LAYER, layer, <char *>l, reads_out)
    if l.D > 2 or (l.reverse and l.D > 1):
        refuse("weight_ih", SHAPE, layer.weight_ih)
    check_dropout(l.dropout, l.layer, l.first_step, l.T)
    if l.dropout > 0 and l.dropped.data == NULL:
        refuse("dropped", NO_ARRAY, None)
    if (l.noise == NULL) != (l.keys == NULL):
        refuse("keys" if l.keys == NULL else "noise", NO_ARRAY, None)
    if (l.resets.data == NULL) != (l.h_reset == NULL):
        refuse("h_reset" if l.h_reset == NULL else "resets", NO_ARRAY, None)
    if l.resets.data != NULL and (l.D > 1 or l.reverse):
        refuse("resets", SHAPE, layer.resets)
    if l.lengths != NULL:
        check_lengths(l.lengths, l.T, l.B, layer.lengths)
    if l.has_tokens and not are_within(&l.x, l.T, l.B, l.lengths, l.I):
        refuse("x", VALUES, layer.x)
    return 0


cdef Call take_chain(tuple layers, elman_layer *l):
    """Layers of one step and one direction, without gaps, each but the first on the outputs of the one below."""
    cdef Call call = Call()
    for k, layer in enumerate(layers):
        take_layer(call, &l[k], layer, False)
        if l[k].T != 1 or l[k].B != l[0].B or l[k].D != 1 or l[k].lengths != NULL:
            refuse("x", SHAPE, layer.x)
        if l[k].B > 1 and l[k].y.b_stride != <Py_ssize_t>l[k].H:
            refuse("y", SHAPE, layer.y)
        if l[k].B > 1 and l[k].second.data != NULL and l[k].second.b_stride != <Py_ssize_t>l[k].H:
            refuse("second", SHAPE, layer.second)
        if l[k].dropout > 0 or l[k].noise != NULL or l[k].resets.data != NULL:
            raise ValueError("layers: expected neither dropout, noise nor resets")
        if k and (l[k].x.data != l[k - 1].y.data or l[k].I != l[k - 1].H):
            refuse("x", SHAPE, layer.x)
    return call


cdef class Table:
    """The kernels of one instruction set and dtype, and addresses by name: pairs of epilogues, rules of updates."""

    cdef elman_kernels kernels
    cdef dict epilogues, rules
    cdef bint has_gradients  # what kernels that compute some want to find
    cdef readonly str instruction_set, dtype


cdef int take_cell(const elman_cell *cell, layer, elman_layer *l, bint has_gradients) except -1:
    """A cell gets what it needs, and nothing else."""
    while cell.name != NULL and cell.name.decode() != layer.cell:
        cell += 1
    if (
        cell.name == NULL
        or (l.numbers != NULL) != cell.has_numbers
        or (l.second.data != NULL) != cell.has_second
        or (has_gradients and (l.carry != NULL) != cell.has_carry)
        or (l.d_numbers != NULL and not cell.has_numbers)
    ):
        raise ValueError(f"cell: expected one of the kernels', with its numbers, second and carry; got {layer.cell!r}")
    if <object>item_of(layer, CELL) is not ELMAN:
        l.cell = cell
    return 0


cdef dict named(const elman_named *item):
    result = {}
    while item.name != NULL:
        result[item.name.decode()] = <size_t>item.address
        item += 1
    return result


cdef enum:  # fields of elman_kernels that a Door may have to ask for
    FORWARD = 0, BACKWARD, A_READOUT, READOUT_LOSS, CLIP_NORM

cdef tuple FUNCTIONS = ("forward", "backward", "readout", "readout_loss", "clip_norm")


@cython.final
cdef class Door:
    """The functions of the contract, on the kernels of csrc/, or on such as are made elsewhere when they are needed.

    `make(what, instruction_set, dtype)` returns an address: of a function of elman_kernels by its name (but "update",
    "normals", "recurrent_mask", "generate", "plan" and "transpose" are always C); of what they want as "own", to which "gradients" adds what is only for these;
    of a pair of epilogues, for (cell, activation); of a rule, for ("update", name).
    `places`: by dtype, the addresses of elman_kernels to begin with, instead of those of csrc/.
    """

    cdef object make
    cdef bint is_made  # elsewhere
    cdef dict tables, places
    cdef Table single, double

    def __init__(self, make, *, is_made: bool = True, places=None):
        self.make, self.is_made, self.tables, self.places = make, is_made, {}, places
        doors.append(self)
        self.choose()

    def choose(self):
        """Go over to the instruction set in use."""
        if chosen_set not in self.tables:
            self.tables[chosen_set] = self.table("float32"), self.table("float64")
        self.single, self.double = self.tables[chosen_set]

    cdef Table table(self, str dtype):
        cdef Table table = Table()
        table.instruction_set, table.dtype = chosen_set, dtype
        cdef const elman_kernels *kernels = elman_table(chosen_set.encode(), dtype == "float64")
        if self.places is not None:
            kernels = <const elman_kernels *><size_t>self.places[dtype]
        table.kernels = kernels[0]
        table.epilogues, table.rules = {}, {}
        cdef const elman_cell *cell = table.kernels.cells
        while cell.name != NULL:
            table.epilogues[cell.name.decode()] = {} if self.is_made else named(cell.activations)
            cell += 1
        if self.is_made:
            memset(&table.kernels, 0, len(FUNCTIONS) * sizeof(void *))
        return table

    cdef Table of(self, char dtype, int function):
        """The table for a dtype, which has this function."""
        cdef Table table = self.double if dtype == b"d" else self.single
        cdef void **functions = <void **>&table.kernels
        if functions[function] == NULL:
            table.kernels.own = <void *><size_t>self.make("own", table.instruction_set, table.dtype)
            functions[function] = <void *><size_t>self.make(FUNCTIONS[function], table.instruction_set, table.dtype)
        return table

    cdef int prepare_gradients(self, Table table) except -1:
        if self.is_made and not table.has_gradients:
            self.make("gradients", table.instruction_set, table.dtype)
            table.has_gradients = True
        return 0

    cdef int complete(self, Table table, layer, elman_layer *l, bint has_gradients=False) except -1:
        """What a layer has besides arrays and numbers: its cell, epilogues, and what kernels made elsewhere need."""
        activation, cell = <object>item_of(layer, ACTIVATION), <object>item_of(layer, CELL)
        if cell is not ELMAN or l.numbers != NULL or l.second.data != NULL or l.carry != NULL or l.d_numbers != NULL:
            take_cell(table.kernels.cells, layer, l, has_gradients)
        if l.d_noise != NULL and l.noise == NULL:
            refuse("noise", NO_ARRAY, None)
        if l.d_h_reset != NULL and l.h_reset == NULL:
            refuse("h_reset", NO_ARRAY, None)
        l.own, l.add_noise = table.kernels.own, table.kernels.add_noise
        l.epilogues = self.pair_of(table, cell, activation)
        return 0

    cdef const void *pair_of(self, Table table, cell, activation) except NULL:
        cdef dict pairs = table.epilogues[cell]
        address = pairs.get(activation)
        if address is None:
            address = pairs[activation] = self.make((cell, activation), table.instruction_set, table.dtype)
        return <const void *><size_t>address

    cpdef forward(self, layer):
        cdef Call call = Call()
        cdef elman_layer l
        cdef int status
        take_layer(call, &l, layer, False)
        cdef Table table = self.of(call.dtype, FORWARD)
        self.complete(table, layer, &l)
        with nogil:
            status = table.kernels.forward(&l)
        check(status, layer.activation)

    cpdef backward(self, layer, gradients):
        cdef Call call = Call()
        cdef elman_layer l
        cdef int status
        take_layer(call, &l, layer, True)
        call.take(GRADIENTS, gradients, <char *>&l)
        if l.has_tokens and gradients.d_x is not None:
            refuse("d_x", DTYPE, gradients.d_x)
        cdef Table table = self.of(call.dtype, BACKWARD)
        self.prepare_gradients(table)
        self.complete(table, layer, &l, True)
        with nogil:
            status = table.kernels.backward(&l)
        check(status, layer.activation)

    cpdef step(self, x, h, weight_ih, weight_hh, bias, h_next, activation):
        """A sequence of one time step."""
        cdef Call call = Call()
        cdef elman_layer l
        cdef int status
        l = PLAIN_LAYER
        l.weight_ih = call.block(weight_ih, "weight_ih", BLOCK, 2, ANY, ANY)
        l.T, l.D, l.I, l.H = 1, 1, call.view.shape[0], call.view.shape[1]
        l.h_0 = call.block(h, "h", BLOCK, 2, ANY, l.H)
        l.B = call.view.shape[0]
        cdef Py_ssize_t *expected = [l.B, l.I]
        l.has_tokens = look(x, &call.view) and call.view.ndim == 1
        cdef int fault = call.fault(x, INTEGERS if l.has_tokens else BLOCK, 1 if l.has_tokens else 2, expected)
        if not fault:
            l.x.data, l.x.b_stride = call.view.data, 1 if l.has_tokens else l.I
        if not fault and l.has_tokens and not are_within(&l.x, 1, l.B, NULL, l.I):
            fault = VALUES
        if fault:
            refuse("x", fault, x)
        l.weight_hh = call.block(weight_hh, "weight_hh", BLOCK, 2, l.H, l.H)
        l.bias = call.block(bias, "bias", OPTIONAL, 1, l.H)
        l.y.data, l.y.b_stride = call.block(h_next, "h_next", OUT, 2, l.B, l.H), l.H
        cdef Table table = self.of(call.dtype, FORWARD)
        l.own, l.epilogues = table.kernels.own, self.pair_of(table, "elman", activation)
        with nogil:
            status = table.kernels.forward(&l)
        check(status, activation)

    cpdef readout(self, r):
        cdef Call call = Call()
        cdef elman_readout c
        cdef int status
        c = PLAIN_READOUT
        call.take(READOUT, tuple(r[:4]) + NO_LOSS, <char *>&c)
        cdef Table table = self.of(call.dtype, A_READOUT)
        c.own = table.kernels.own
        with nogil:
            status = table.kernels.readout(&c)
        check(status)

    cpdef generate(self, g):
        cdef elman_generation c
        cdef elman_readout r
        cdef size_t k
        cdef int status
        cdef tuple own_layers = tuple(g.layers)  # what is held here lasts as long as the call
        if not own_layers:
            raise ValueError("layers: expected at least one; got none")
        cdef bytearray memory = bytearray(len(own_layers) * sizeof(elman_layer))
        cdef elman_layer *layers = <elman_layer *><char *>memory
        cdef Call call = take_chain(own_layers, layers)
        r = PLAIN_READOUT
        call.take(READOUT, tuple(g.readout[:4]) + NO_LOSS, <char *>&r)
        r.loss = LOSSES[g.readout.loss]
        is_category = r.loss == ELMAN_CROSS_ENTROPY
        c.L, c.layers, c.readout, c.law = len(own_layers), layers, &r, LAWS[g.law]
        if r.T != 1 or r.B != layers.B or r.h.data != layers[c.L - 1].y.data or r.K != layers[c.L - 1].H:
            refuse("h", SHAPE, g.readout.h)
        if layers.has_tokens and not is_category:
            refuse("x", SHAPE, own_layers[0].x)
        cdef View *view = &call.view
        c.drawn = call.block(g.drawn, "drawn", OUT | (INTEGERS if is_category else 0), 2 if is_category else 3, ANY, r.B, ANY)
        c.N, c.n_fed = view.shape[0], r.O if is_category else view.shape[2]
        if c.n_fed == 0 or r.O % c.n_fed or r.O // c.n_fed < max(contract.LAWS[g.law], g.rank + 1):
            refuse("drawn", SHAPE, g.drawn)
        look(own_layers[0].x, view)
        if layers.I < c.n_fed:
            refuse("x", SHAPE, own_layers[0].x)
        if not view.is_writeable:
            refuse("x", READ_ONLY, own_layers[0].x)
        c.outputs = call.block(g.outputs, "outputs", OUT | OPTIONAL, 3, c.N, r.B, r.O)
        c.beside = call.block(g.beside, "beside", OPTIONAL, 3, c.N, r.B, layers.I - c.n_fed)
        c.affine = call.block(g.affine, "affine", OPTIONAL, 2, 2, c.n_fed)
        cdef Call doubles = Call()
        doubles.dtype = b"d"
        c.n_uniforms = 1 if is_category else c.n_fed if r.loss == ELMAN_BINARY_CROSS_ENTROPY else 2 * c.n_fed
        c.uniforms = <const double *>doubles.block(g.uniforms, "uniforms", OPTIONAL, 3, c.N, r.B, c.n_uniforms)
        c.temperature, c.top_p, c.end = g.temperature, 1 if g.top_p is None else g.top_p, -1 if g.end is None else g.end
        c.top_k, c.rank = r.O if g.top_k is None else natural("top_k", g.top_k), natural("rank", g.rank)
        cdef Table table = self.of(call.dtype, FORWARD)
        self.of(call.dtype, A_READOUT)
        r.own = table.kernels.own
        for k in range(c.L):
            self.complete(table, own_layers[k], &layers[k])
        done = np.empty(r.B, np.int64)
        cdef int64_t *own_done = <int64_t *>call.block(done, "done", OUT | INTEGERS, 1, r.B)
        with nogil:
            status = table.kernels.generate(&table.kernels, &c, own_done)
        check(status, own_layers[0].activation)
        return done

    cpdef readout_loss(self, r):
        cdef Call call = Call()
        cdef elman_readout c
        cdef double total = 0
        cdef int status
        c = PLAIN_READOUT
        has_tokens = call.take(READOUT, r, <char *>&c)
        c.loss = LOSSES[r.loss]
        if r.target is None or has_tokens != (r.loss == "cross_entropy"):
            refuse("target", NO_ARRAY if r.target is None else DTYPE, r.target)
        check_lengths(c.lengths, c.T, c.B, r.lengths)
        if has_tokens and not have_targets(&c, call.dtype):
            refuse("target", VALUES, r.target)
        cdef Table table = self.of(call.dtype, READOUT_LOSS)
        if c.d_h.data != NULL or c.d_weight != NULL or c.d_bias != NULL:
            self.prepare_gradients(table)
        c.own = table.kernels.own
        with nogil:
            status = table.kernels.readout_loss(&c, &total)
        check(status)
        return total

    cpdef clip_norm(self, gradient, max_norm):
        cdef Call call = Call()
        cdef void *g = call.block(gradient, "gradient", OUT, 1, ANY)
        cdef size_t n = call.view.shape[0]
        cdef double most = max_norm, norm = 0
        cdef int status
        cdef Table table = self.of(call.dtype, CLIP_NORM)
        with nogil:
            status = table.kernels.clip_norm(n, g, most, &norm)
        check(status)
        return norm

    cpdef update(self, u):
        cdef Call call = Call()
        cdef elman_update c
        cdef void *memories[MOST_MEMORIES]
        cdef int i
        rule_name, parameters, gradient, given, numbers = u
        cdef tuple own_memories = tuple(given)  # what is held here lasts as long as the call
        c.parameters = call.block(parameters, "parameters", OUT, 1, ANY)
        c.n = call.view.shape[0]
        c.gradient = call.block(gradient, "gradient", BLOCK, 1, c.n)
        cdef Table table = self.double if call.dtype == b"d" else self.single
        cdef const elman_rule *rule = table.kernels.rules
        while rule.name != NULL and rule.name != <bytes>rule_name.encode():
            rule += 1
        n_memories = len(own_memories)
        if rule.name == NULL or not rule.least_memories <= n_memories <= min(rule.most_memories, MOST_MEMORIES) or len(numbers) != rule.numbers:
            raise ValueError(f"update: expected a rule with its memories and numbers; got {rule_name}, {n_memories}, {len(numbers)}")
        memset(memories, 0, sizeof(memories))
        for i, memory in enumerate(own_memories):
            memories[i] = call.block(memory, f"memories[{i}]", OUT, 1, c.n)
        c.memories, c.numbers = memories, call.take_numbers(numbers)
        cdef const void *task = rule.task
        if self.is_made:
            if rule_name not in table.rules:
                table.rules[rule_name] = self.make(("update", rule_name), table.instruction_set, table.dtype)
            task = <const void *><size_t>table.rules[rule_name]
        with nogil:
            table.kernels.update(&c, task)

    cpdef recurrent_mask(self, mask, double p, key, int64_t layer):
        cdef Call call = Call()
        cdef uint64_t own_key = natural("key", key)
        cdef Py_ssize_t *expected = [ANY, ANY, ANY]
        cdef View *view = &call.view
        cdef int fault = call.fault(mask, OUT, 3, expected)
        if fault or view.shape[0] > 2:
            refuse("mask", fault or SHAPE, mask)
        check_dropout(p, layer, 0, 0)
        cdef Table table = self.double if call.dtype == b"d" else self.single
        with nogil:
            table.kernels.recurrent_mask(view.shape[0], view.shape[1], view.shape[2], p, own_key, layer, view.data)

    cpdef normals(self, out, keys, stream, first_step):
        cdef Call call = Call()
        cdef elman_rows rows
        cdef size_t own_stream = natural("stream", stream), step = natural("first_step", first_step)
        cdef Py_ssize_t *expected = [ANY, ANY, ANY]
        cdef View *view = &call.view
        cdef int fault = call.fault(out, OUT | ROWS, 3, expected)
        if fault:
            refuse("out", fault, out)
        cdef Py_ssize_t T = view.shape[0], B = view.shape[1], N = view.shape[2]
        rows.data, rows.t_stride, rows.b_stride = view.data, view.strides[0] // view.itemsize, view.strides[1] // view.itemsize
        if own_stream >> 32 or step > (<size_t>1 << 32) - <size_t>T:
            raise ValueError(f"stream, first_step: expected words of 32 bits; got {stream}, {first_step}")
        cdef const int64_t *own_keys = <const int64_t *>call.block(keys, "keys", INTEGERS, 1, B)
        cdef Table table = self.double if call.dtype == b"d" else self.single
        cdef int status
        with nogil:
            status = table.kernels.normals(T, B, N, &rows, own_keys, step, own_stream)
        check(status)


cdef list doors = []
cdef str chosen_set


def instruction_sets() -> tuple:
    """The instruction sets that this build has and this machine runs, best first."""
    names = []
    cdef int i = 0
    while elman_sets[i] != NULL:
        if elman_table(elman_sets[i], 0) != NULL:
            names.append(elman_sets[i].decode())
        i += 1
    return tuple(names)


def instruction_set() -> str:
    """The instruction set in use."""
    return chosen_set


def vector_of(name: str) -> tuple:
    """The bytes of an instruction set's vectors, and whether its multiply-adds round once."""
    cdef const elman_kernels *kernels = elman_table(name.encode(), 0)
    return kernels.vector_bytes, bool(kernels.is_fused)


def use_instruction_set(name: str, source: str = "instruction set") -> None:
    """Use one of `instruction_sets()` from now on; not while other threads compute. `source` is for the error."""
    global chosen_set
    if name not in instruction_sets():
        raise ValueError(f"{source}: expected one of {', '.join(instruction_sets())} on this machine, got {name!r}")
    chosen_set = name
    for door in doors:
        door.choose()


use_instruction_set(os.environ.get("ELMAN_ISA") or elman_best().decode(), "ELMAN_ISA")


def _made(what, instruction_set, dtype):
    """A user's own activation, which Numba compiles; everything else is there already."""
    from elman.backends.activations import Activation

    if not isinstance(what[1], Activation):
        raise KeyError(what[1])
    from elman.backends.jit.backend import make

    return make(what, instruction_set, dtype)


takes_activations = importlib.util.find_spec("numba") is not None  # a user's own (elman.activation)
cdef Door door = Door(_made, is_made=False)


def forward(layer):
    door.forward(layer)


def backward(layer, gradients):
    door.backward(layer, gradients)


def step(x, h, weight_ih, weight_hh, bias, h_next, *, activation):
    door.step(x, h, weight_ih, weight_hh, bias, h_next, activation)


def readout(r):
    door.readout(r)


def readout_loss(r):
    return door.readout_loss(r)


def generate(g):
    return door.generate(g)


def clip_norm(gradient, *, max_norm):
    return door.clip_norm(gradient, max_norm)


def update(u):
    door.update(u)


def normals(out, keys, *, stream, first_step=0):
    door.normals(out, keys, stream, first_step)


def recurrent_mask(mask, *, p, key, layer=0):
    door.recurrent_mask(mask, p, key, layer)


def plan(
    n_steps: int, n_rows: int, n_inputs: int, n_hidden: int, *,
    directions: int = 1, dtype: str = "float32", has_tokens: bool = False, is_backward: bool = False, parts: int = 0,
) -> dict | None:
    """How a layer's pass over (T, B, I) with H units would divide its work now (elman_plan of csrc/elman.h).

    `parts`: threads that share the columns of H, 0 for as many as is best. None where threads are too few for that.
    """
    if min(n_steps, n_rows, n_inputs, n_hidden) < 1 or directions not in (1, 2) or parts < 0:
        raise ValueError("plan: expected positive sizes, and 1 or 2 directions")
    cdef elman_layer layer = PLAIN_LAYER
    layer.T, layer.B, layer.I, layer.H, layer.D, layer.has_tokens = n_steps, n_rows, n_inputs, n_hidden, directions, has_tokens
    cdef elman_plan out
    cdef Table table = door.double if dtype == "float64" else door.single
    return None if table.kernels.plan(&layer, is_backward, parts, &out) else out


def multiply_adds(rounds: int, dtype: str = "float32") -> float:
    """Keep all threads at multiply-adds in registers, some nanoseconds for each round; how many operations these were:
    over the seconds that it takes, what this machine can do at best.
    """
    if rounds < 1 or dtype not in ("float32", "float64"):
        raise ValueError(f"multiply_adds: expected rounds >= 1 of float32 or float64, got {rounds}, {dtype}")
    cdef Table table = door.double if dtype == "float64" else door.single
    cdef size_t n = rounds
    with nogil:
        operations = table.kernels.multiply_adds(n)
    return operations


cdef extern from *:
    """
    /* How what a DLPack capsule points to begins: <https://dmlc.github.io/dlpack/latest/c_api.html>. */
    typedef struct {
        char *data;
        int32_t device, device_id, ndim;
        uint8_t code, bits;
        uint16_t lanes;
        int64_t *shape, *strides;
        uint64_t offset;
    } elman_tensor;
    """
    ctypedef struct elman_tensor:
        char *data
        int32_t device, ndim
        uint8_t code, bits
        int64_t *shape
        int64_t *strides
        uint64_t offset


cdef void *tensor_data(capsule, char dtype, int ndim, size_t n0, size_t n1) except NULL:
    """What a DLPack capsule has: reals on the CPU, C-contiguous, of that shape."""
    cdef elman_tensor *tensor = <elman_tensor *>PyCapsule_GetPointer(capsule, "dltensor")
    cdef int64_t *expected = [n0, n1]
    cdef int64_t unit = 1
    cdef int i
    fits = tensor.device == 1 and tensor.code == 2 and tensor.bits == (64 if dtype == b"d" else 32) and tensor.ndim == ndim
    for i in range(ndim - 1, -1, -1):
        fits = fits and tensor.shape[i] == expected[i] and (
            tensor.strides == NULL or tensor.strides[i] == unit or expected[i] == 1
        )
        unit *= expected[i]
    if not fits:
        raise ValueError("tensors: expected them contiguous, on the CPU, in the dtype and the reversed shapes of the arrays")
    return tensor.data + tensor.offset


cdef void transpose(char dtype, size_t m, size_t n, const void *source, void *target) noexcept:
    cdef Table table = door.double if dtype == b"d" else door.single
    with nogil:
        table.kernels.transpose(m, n, source, target)


def from_tensors(arrays, tensors) -> None:
    """Write DLPack capsules to arrays: to one of (m, n) a tensor (n, m), transposed; to one of (n,) the sum of two."""
    cdef Call call = Call()
    cdef void *target
    cdef const void *first
    cdef const void *second
    cdef size_t m, n, i
    cdef int ndim
    rest = iter(tensors)
    for array in arrays:
        ndim = 2 if array.ndim == 2 else 1
        target = call.block(array, "arrays", OUT, ndim, ANY, ANY)
        m, n = call.view.shape[0], call.view.shape[1]
        capsule = next(rest)
        if ndim == 2:
            transpose(call.dtype, n, m, tensor_data(capsule, call.dtype, 2, n, m), target)
            continue
        other = next(rest)
        first, second = tensor_data(capsule, call.dtype, 1, m, 0), tensor_data(other, call.dtype, 1, m, 0)
        for i in range(m):
            if call.dtype == b"d":
                (<double *>target)[i] = (<const double *>first)[i] + (<const double *>second)[i]
            else:
                (<float *>target)[i] = (<const float *>first)[i] + (<const float *>second)[i]


def transpose_each(sources, targets) -> None:
    """Write each (m, n) to its target (n, m), or (n,) to (n,): blocks that do not overlap. Targets may be None."""
    cdef Call call = Call()
    cdef const void *source
    cdef void *target
    cdef size_t m, n
    cdef int ndim
    for array, other in zip(sources, targets, strict=True):
        if other is None:
            continue
        ndim = 2 if array.ndim == 2 else 1
        source = call.block(array, "sources", BLOCK, ndim, ANY, ANY)
        m, n = call.view.shape[0], call.view.shape[1] if ndim == 2 else 1
        target = call.block(other, "targets", OUT, ndim, n if ndim == 2 else m, m)
        transpose(call.dtype, m, n, source, target)
