# cython: language_level=3, freethreading_compatible=True, embedsignature=False
"""The compiled backend "cython": arrays in, C kernels (csrc/) out with the GIL released; no mathematics here.

The functions are those of `elman.backends.reference`, which documents them. Arrays come through the buffer protocol;
none reaches a kernel that `Buffers` has not held against the layer (wall.py).
"""

import os
from threading import get_ident, main_thread

from elman.backends.wall import refuse

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, Py_buffer, PyBuffer_Release
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from libc.stdint cimport int64_t

cdef extern from "Python.h":
    int get_buffer "PyObject_GetBuffer"(object array, Py_buffer *view, int flags)  # without Cython's try for each

cdef extern from "elman.h" nogil:
    ctypedef struct elman_rows:
        void *data
        Py_ssize_t t_stride, b_stride

    ctypedef struct elman_layer:
        size_t T, B, I, H, D
        int activation, reverse, has_tokens
        const int64_t *lengths
        elman_rows x, y, d_y, delta, d_x
        const void *h_0
        const void *weight_ih
        const void *weight_hh
        const void *bias
        const void *mask
        const void *d_h_n
        void *h_n
        void *d_weight_ih
        void *d_weight_hh
        void *d_bias
        void *d_h_0

    ctypedef struct elman_readout:
        size_t T, B, K, O
        int loss
        double scale
        const int64_t *lengths
        elman_rows h, target, weights, o, d_h
        const void *weight
        const void *bias
        void *d_weight
        void *d_bias

    ctypedef struct elman_plan:
        size_t threads, shards, parts, rows, panels, width, tiles, height, is_packed, block_steps, vector_reals
        double cycles

    ctypedef struct elman_kernels:
        int (*forward)(const elman_layer *) noexcept nogil
        int (*backward)(const elman_layer *) noexcept nogil
        int (*plan)(const elman_layer *, int, size_t, elman_plan *) noexcept nogil
        int (*readout)(const elman_readout *) noexcept nogil
        int (*readout_loss)(const elman_readout *, double *) noexcept nogil
        int (*clip_norm)(size_t, void *, double, double *) noexcept nogil
        void (*transpose)(size_t, size_t, const void *, void *) noexcept nogil
        void (*sgd)(size_t, void *, const void *, void *, double, double) noexcept nogil
        void (*adagrad)(size_t, void *, const void *, void *, double, double) noexcept nogil
        void (*adam)(size_t, void *, const void *, void *, void *, double, double, double, double, double, int64_t) noexcept nogil

    const elman_kernels *elman_table(const char *instruction_set, int is_double)
    const char *elman_best()
    const char *elman_sets[]

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

cdef dict ACTIVATIONS = {"tanh": 0, "relu": 1, "sigmoid": 2, "identity": 3}  # enum elman_activation
cdef dict LOSSES = {"cross_entropy": 0, "binary_cross_entropy": 1, "squared_error": 2}  # enum elman_loss

cdef const elman_kernels *kernels_float
cdef const elman_kernels *kernels_double
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


def use_instruction_set(name: str, source: str = "instruction set") -> None:
    """Use one of `instruction_sets()` from now on; not while other threads compute. `source` is for the error."""
    global kernels_float, kernels_double, chosen_set
    if name not in instruction_sets():
        raise ValueError(f"{source}: expected one of {', '.join(instruction_sets())} on this machine, got {name!r}")
    encoded = name.encode()
    kernels_float, kernels_double = elman_table(encoded, 0), elman_table(encoded, 1)
    chosen_set = name


use_instruction_set(os.environ.get("ELMAN_ISA") or elman_best().decode(), "ELMAN_ISA")


def set_num_threads(n: int) -> None:
    elman_set_num_threads(n)


def bound_threads(n: int) -> None:
    elman_bound_threads(n)


def get_num_threads() -> int:
    return elman_get_num_threads()


def pool_addresses() -> dict:
    """The functions of the thread pool by their C names, for kernels that are compiled at run time."""
    return {
        "elman_run": <size_t>&elman_run,
        "elman_run_team": <size_t>&elman_run_team,
        "elman_meet": <size_t>&elman_meet,
        "elman_begin": <size_t>&elman_begin,
        "elman_end": <size_t>&elman_end,
        "elman_stop": <size_t>&elman_stop,
        "elman_stopped": <size_t>&elman_stopped,
        "elman_get_num_threads": <size_t>&elman_get_num_threads,
        "elman_lease": <size_t>&elman_lease,
        "elman_return": <size_t>&elman_return,
    }


def plan(
    n_steps: int, n_rows: int, n_inputs: int, n_hidden: int, *,
    directions: int = 1, dtype: str = "float32", has_tokens: bool = False, is_backward: bool = False, parts: int = 0,
) -> dict | None:
    """How a layer's pass over (T, B, I) with H units would divide its work now (elman_plan of csrc/elman.h).

    `parts`: threads that share the columns of H, 0 for as many as is best. None where threads are too few for that.
    """
    if min(n_steps, n_rows, n_inputs, n_hidden) < 1 or directions not in (1, 2) or parts < 0:
        raise ValueError("plan: expected positive sizes, and 1 or 2 directions")
    cdef elman_layer layer = elman_layer(T=n_steps, B=n_rows, I=n_inputs, H=n_hidden, D=directions, has_tokens=has_tokens)
    cdef elman_plan out
    cdef const elman_kernels *kernels = kernels_double if dtype == "float64" else kernels_float
    return None if kernels.plan(&layer, is_backward, parts, &out) else out


cdef enum:  # what is expected of an array besides its extents
    BLOCK = 0  # reals, C-contiguous
    ROWS = 1  # reals, of any strides but one on the last axis
    LOOSE = 2  # of any strides
    INTEGERS = 4
    WRITTEN = 8

cdef enum:  # of elman.backends.wall
    NO_ARRAY = 1, DTYPE, SHAPE, STRIDES, ALIGNMENT, READ_ONLY, VALUES

cdef enum:
    ANY = -1  # an extent that is the array's to say


cdef class Buffers:
    """The arrays of one call, held until it ends: each is held against the layer before it becomes a pointer."""

    cdef Py_buffer views[20]
    cdef int n
    cdef char dtype  # of all reals: 'f' or 'd'

    def __dealloc__(self):
        cdef int i
        for i in range(self.n):
            PyBuffer_Release(&self.views[i])

    cdef Py_buffer *hold(self, array, name) except NULL:
        cdef Py_buffer *view = &self.views[self.n]
        if get_buffer(array, view, PyBUF_STRIDES | PyBUF_FORMAT):
            PyErr_Clear()
            refuse(name, NO_ARRAY, array)
        self.n += 1
        return view

    cdef int check(self, Py_buffer *view, array, name, int kind, int ndim, Py_ssize_t n0, Py_ssize_t n1=1, Py_ssize_t n2=1) except -1:
        """The wall (elman.backends.wall): dtype, extents, strides, alignment, and that outputs can be written to."""
        cdef Py_ssize_t *expected = [n0, n1, n2]
        cdef int fault = self.fault(view, kind, ndim, expected)
        if fault:
            refuse(name, fault, array)
        return 0

    cdef int fault(self, Py_buffer *view, int kind, int ndim, const Py_ssize_t *expected) noexcept:
        cdef char dtype = b"B" if view.format == NULL else view.format[0]
        cdef Py_ssize_t size = view.itemsize, unit = size
        cdef int i
        if kind & INTEGERS:
            if (dtype != b"l" and dtype != b"q") or size != sizeof(int64_t):
                return DTYPE
        else:
            if self.dtype == 0 and (dtype == b"f" or dtype == b"d"):
                self.dtype = dtype
            if dtype != self.dtype:
                return DTYPE
        if dtype == b"B" or view.format[1] != 0:
            return DTYPE
        if view.ndim != ndim:
            return SHAPE
        for i in range(ndim):
            if view.shape[i] < 1 or (expected[i] != ANY and view.shape[i] != expected[i]):
                return SHAPE
        if <size_t>view.buf % <size_t>size:
            return ALIGNMENT
        for i in range(ndim - 1, -1, -1):
            if view.shape[i] > 1:  # else its stride leads nowhere
                if view.strides[i] != unit and not (kind & LOOSE or (kind & ROWS and i < ndim - 1)):
                    return STRIDES
                if view.strides[i] % size:
                    return ALIGNMENT
            unit *= view.shape[i]
        return READ_ONLY if kind & WRITTEN and view.readonly else 0

    cdef void *block(self, array, name, int kind, int ndim, Py_ssize_t n0, Py_ssize_t n1=1, Py_ssize_t n2=1) except? NULL:
        """A contiguous array, or NULL for None."""
        if array is None:
            return NULL
        cdef Py_buffer *view = self.hold(array, name)
        self.check(view, array, name, kind, ndim, n0, n1, n2)
        return view.buf

    cdef void *needed(self, array, name, int kind, int ndim, Py_ssize_t n0, Py_ssize_t n1=1, Py_ssize_t n2=1) except NULL:
        """A contiguous array, never None."""
        cdef void *data = self.block(array, name, kind, ndim, n0, n1, n2)
        if data == NULL:
            refuse(name, NO_ARRAY, array)
        return data

    cdef elman_rows rows(self, array, name, int kind, int ndim, Py_ssize_t T, Py_ssize_t B, Py_ssize_t n=1) except *:
        """Over time: (T, B, n), or (T, B); no rows for None."""
        cdef elman_rows rows
        cdef Py_buffer *view
        rows.data, rows.t_stride, rows.b_stride = NULL, 0, 0
        if array is not None:
            view = self.hold(array, name)
            self.check(view, array, name, kind, ndim, T, B, n)
            rows = rows_of(view)
        return rows

    cdef elman_rows needed_rows(self, array, name, int kind, Py_ssize_t T, Py_ssize_t B, Py_ssize_t n) except *:
        cdef elman_rows rows = self.rows(array, name, kind, 3, T, B, n)
        if rows.data == NULL:
            refuse(name, NO_ARRAY, array)
        return rows

    cdef const int64_t *lengths(self, array, Py_ssize_t T, Py_ssize_t B) except? NULL:
        cdef const int64_t *lengths = <const int64_t *>self.block(array, "lengths", INTEGERS, 1, B)
        cdef Py_ssize_t b
        if lengths != NULL:
            for b in range(B):
                if not 0 <= lengths[b] <= T:
                    refuse("lengths", VALUES, array)
        return lengths

    cdef const elman_kernels *kernels(self) noexcept:
        return kernels_double if self.dtype == b"d" else kernels_float


cdef elman_rows rows_of(Py_buffer *view) noexcept:
    cdef elman_rows rows
    rows.data = view.buf
    rows.t_stride, rows.b_stride = view.strides[0] // view.itemsize, view.strides[1] // view.itemsize
    return rows


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


cdef int set_layer(elman_layer *layer, Buffers a, x, h_0, weight_ih, weight_hh, bias, activation, lengths, mask, reverse) except -1:
    cdef Py_buffer *view = a.hold(weight_ih, "weight_ih")
    a.check(view, weight_ih, "weight_ih", BLOCK, 3, ANY, ANY, ANY)
    layer.D, layer.I, layer.H = view.shape[0], view.shape[1], view.shape[2]
    if layer.D > 2 or (reverse and layer.D > 1):
        refuse("weight_ih", SHAPE, weight_ih)
    layer.weight_ih = view.buf
    view = a.hold(x, "x")
    layer.has_tokens = view.ndim == 2
    a.check(view, x, "x", INTEGERS | LOOSE if layer.has_tokens else ROWS, 2 if layer.has_tokens else 3, ANY, ANY, layer.I)
    layer.T, layer.B, layer.x = view.shape[0], view.shape[1], rows_of(view)
    layer.h_0 = a.needed(h_0, "h_0", BLOCK, 3, layer.D, layer.B, layer.H)
    layer.weight_hh = a.needed(weight_hh, "weight_hh", BLOCK, 3, layer.D, layer.H, layer.H)
    layer.bias = a.block(bias, "bias", BLOCK, 2, layer.D, layer.H)
    layer.mask = a.block(mask, "mask", BLOCK, 3, layer.D, layer.B, layer.H)
    layer.lengths = a.lengths(lengths, layer.T, layer.B)
    if layer.has_tokens and not are_within(&layer.x, layer.T, layer.B, layer.lengths, layer.I):
        refuse("x", VALUES, x)
    layer.activation = ACTIVATIONS[activation]
    layer.reverse = reverse
    return 0


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


def check(status: int, activation=None) -> None:
    """Raise what stands behind the status that a kernel returned (pool.h), if it is not 0."""
    global interruption
    if not status:
        return
    if interruption is not None and get_ident() == main_thread().ident:  # whatever else has happened
        error, interruption = interruption, None
        raise error
    if status == ELMAN_RAISED:
        raise RuntimeError(
            f"nonlinearity {activation}: its f or df raised an exception; the backend 'numpy' says which"
        )
    raise MemoryError("no memory for the kernels' scratch")


def forward(layer):
    x, h_0, weight_ih, weight_hh, bias, y, h_n, activation, lengths, mask, reverse = layer
    cdef Buffers a = Buffers()
    cdef elman_layer l
    cdef int status
    set_layer(&l, a, x, h_0, weight_ih, weight_hh, bias, activation, lengths, mask, reverse)
    l.y = a.needed_rows(y, "y", ROWS | WRITTEN, l.T, l.B, l.D * l.H)
    l.h_n = a.needed(h_n, "h_n", BLOCK | WRITTEN, 3, l.D, l.B, l.H)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.forward(&l)
    check(status)


def backward(layer, gradients):
    x, h_0, weight_ih, weight_hh, _, y, _, activation, lengths, mask, reverse = layer
    d_y, d_h_n, delta, d_weight_ih, d_weight_hh, d_bias, d_h_0, d_x = gradients
    cdef Buffers a = Buffers()
    cdef elman_layer l
    cdef int status
    set_layer(&l, a, x, h_0, weight_ih, weight_hh, None, activation, lengths, mask, reverse)
    cdef size_t T = l.T, B = l.B, I = l.I, H = l.H, D = l.D
    l.y, l.h_n = a.needed_rows(y, "y", ROWS, T, B, D * H), NULL
    l.d_y = a.rows(d_y, "d_y", ROWS, 3, T, B, D * H)
    l.d_h_n = a.block(d_h_n, "d_h_n", BLOCK, 3, D, B, H)
    l.delta = a.needed_rows(delta, "delta", ROWS | WRITTEN, T, B, D * H)
    l.d_weight_ih = a.needed(d_weight_ih, "d_weight_ih", BLOCK | WRITTEN, 3, D, I, H)
    l.d_weight_hh = a.needed(d_weight_hh, "d_weight_hh", BLOCK | WRITTEN, 3, D, H, H)
    l.d_bias = a.block(d_bias, "d_bias", BLOCK | WRITTEN, 2, D, H)
    l.d_h_0 = a.needed(d_h_0, "d_h_0", BLOCK | WRITTEN, 3, D, B, H)
    l.d_x = a.rows(d_x, "d_x", ROWS | WRITTEN, 3, T, B, I)
    if l.has_tokens and d_x is not None:
        refuse("d_x", DTYPE, d_x)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.backward(&l)
    check(status)


def step(x, h, weight_ih, weight_hh, bias, h_next, *, activation):
    # a sequence of one time step
    cdef Buffers a = Buffers()
    cdef elman_layer layer
    cdef Py_buffer *view = a.hold(weight_ih, "weight_ih")
    cdef int status
    a.check(view, weight_ih, "weight_ih", BLOCK, 2, ANY, ANY)
    layer.T, layer.D, layer.I, layer.H, layer.weight_ih = 1, 1, view.shape[0], view.shape[1], view.buf
    view = a.hold(x, "x")
    layer.has_tokens = view.ndim == 1
    a.check(view, x, "x", INTEGERS if layer.has_tokens else BLOCK, 1 if layer.has_tokens else 2, ANY, layer.I)
    layer.B = view.shape[0]
    layer.x.data, layer.x.t_stride, layer.x.b_stride = view.buf, 0, 1 if layer.has_tokens else layer.I
    if layer.has_tokens and not are_within(&layer.x, 1, layer.B, NULL, layer.I):
        refuse("x", VALUES, x)
    layer.h_0 = a.needed(h, "h", BLOCK, 2, layer.B, layer.H)
    layer.weight_hh = a.needed(weight_hh, "weight_hh", BLOCK, 2, layer.H, layer.H)
    layer.bias = a.block(bias, "bias", BLOCK, 1, layer.H)
    layer.y.data = a.needed(h_next, "h_next", BLOCK | WRITTEN, 2, layer.B, layer.H)
    layer.y.t_stride, layer.y.b_stride = 0, layer.H
    layer.activation = ACTIVATIONS[activation]
    layer.reverse, layer.lengths, layer.mask, layer.h_n = 0, NULL, NULL, NULL
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.forward(&layer)
    if status:
        check(status)


cdef int set_readout(elman_readout *r, Buffers a, h, weight, bias, o) except -1:
    cdef Py_buffer *view = a.hold(weight, "weight")
    a.check(view, weight, "weight", BLOCK, 2, ANY, ANY)
    r.K, r.O, r.weight = view.shape[0], view.shape[1], view.buf
    view = a.hold(h, "h")
    a.check(view, h, "h", ROWS, 3, ANY, ANY, r.K)
    r.T, r.B, r.h = view.shape[0], view.shape[1], rows_of(view)
    r.bias = a.block(bias, "bias", BLOCK, 1, r.O)
    r.o = a.needed_rows(o, "o", ROWS | WRITTEN, r.T, r.B, r.O)
    r.lengths, r.d_h.data = NULL, NULL
    return 0


def readout(r):
    h, weight, bias, o = r[:4]
    cdef Buffers a = Buffers()
    cdef elman_readout c
    cdef int status
    set_readout(&c, a, h, weight, bias, o)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.readout(&c)
    check(status)


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


def readout_loss(r):
    h, weight, bias, o, target, loss, scale, lengths, weights, d_h, d_weight, d_bias = r
    cdef Buffers a = Buffers()
    cdef elman_readout c
    cdef double total = 0
    cdef int status
    set_readout(&c, a, h, weight, bias, o)
    c.loss, c.scale, c.lengths = LOSSES[loss], scale, a.lengths(lengths, c.T, c.B)
    c.weights = a.rows(weights, "weights", LOOSE, 2, c.T, c.B)
    if loss == "cross_entropy":
        c.target = a.rows(target, "target", INTEGERS | LOOSE, 2, c.T, c.B)
        if target is None:
            refuse("target", NO_ARRAY, target)
        if not have_targets(&c, a.dtype):
            refuse("target", VALUES, target)
    else:
        c.target = a.needed_rows(target, "target", ROWS, c.T, c.B, c.O)
    c.d_h = a.rows(d_h, "d_h", ROWS | WRITTEN, 3, c.T, c.B, c.K)
    c.d_weight = a.block(d_weight, "d_weight", BLOCK | WRITTEN, 2, c.K, c.O)
    c.d_bias = a.block(d_bias, "d_bias", BLOCK | WRITTEN, 1, c.O)
    if (d_h is None) != (d_weight is None):
        refuse("d_weight", NO_ARRAY, d_weight)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.readout_loss(&c, &total)
    check(status)
    return total


def transpose(source, target) -> None:
    """Write source (m, n) to target (n, m): faster than NumPy. Both are C-contiguous and do not overlap."""
    cdef Buffers a = Buffers()
    cdef Py_buffer *view = a.hold(source, "source")
    a.check(view, source, "source", BLOCK, 2, ANY, ANY)
    cdef size_t m = view.shape[0], n = view.shape[1]
    cdef const void *s = view.buf
    cdef void *t = a.needed(target, "target", BLOCK | WRITTEN, 2, n, m)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.transpose(m, n, s, t)


def clip_norm(gradient, *, max_norm):
    cdef Buffers a = Buffers()
    cdef void *g = a.needed(gradient, "gradient", BLOCK | WRITTEN, 1, ANY)
    cdef size_t n = a.views[0].shape[0]
    cdef double most = max_norm, norm = 0
    cdef int status
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.clip_norm(n, g, most, &norm)
    check(status)
    return norm


def _sgd(parameters, gradient, velocity, *, lr, momentum):
    cdef Buffers a = Buffers()
    cdef void *p = a.needed(parameters, "parameters", BLOCK | WRITTEN, 1, ANY)
    cdef size_t n = a.views[0].shape[0]
    cdef void *g = a.needed(gradient, "gradient", BLOCK, 1, n)
    cdef void *v = a.block(velocity, "velocity", BLOCK | WRITTEN, 1, n)
    cdef double c_lr = lr, c_momentum = momentum
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.sgd(n, p, g, v, c_lr, c_momentum)


def _adagrad(parameters, gradient, square_sum, *, lr, eps):
    cdef Buffers a = Buffers()
    cdef void *p = a.needed(parameters, "parameters", BLOCK | WRITTEN, 1, ANY)
    cdef size_t n = a.views[0].shape[0]
    cdef void *g = a.needed(gradient, "gradient", BLOCK, 1, n)
    cdef void *s = a.needed(square_sum, "square_sum", BLOCK | WRITTEN, 1, n)
    cdef double c_lr = lr, c_eps = eps
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.adagrad(n, p, g, s, c_lr, c_eps)


def _adam(
    parameters,
    gradient,
    mean,
    square,
    *,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    step,
):
    cdef Buffers a = Buffers()
    cdef void *p = a.needed(parameters, "parameters", BLOCK | WRITTEN, 1, ANY)
    cdef size_t n = a.views[0].shape[0]
    cdef void *g = a.needed(gradient, "gradient", BLOCK, 1, n)
    cdef void *m = a.needed(mean, "mean", BLOCK | WRITTEN, 1, n)
    cdef void *v = a.needed(square, "square", BLOCK | WRITTEN, 1, n)
    cdef double c_lr = lr, b1 = beta1, b2 = beta2, c_eps = eps, decay = weight_decay
    cdef int64_t t = step
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.adam(n, p, g, m, v, c_lr, b1, b2, c_eps, decay, t)


def update(u):
    rule, parameters, gradient, memories, numbers = u
    if rule == "sgd":
        if memories and memories[0] is None:
            refuse("velocity", NO_ARRAY, memories[0])
        _sgd(parameters, gradient, memories[0] if memories else None, lr=numbers[0], momentum=numbers[1])
    elif rule == "adagrad":
        _adagrad(parameters, gradient, memories[0], lr=numbers[0], eps=numbers[1])
    else:
        _adam(parameters, gradient, *memories, lr=numbers[0], beta1=numbers[1], beta2=numbers[2], eps=numbers[3],
              weight_decay=numbers[4], step=numbers[5])
