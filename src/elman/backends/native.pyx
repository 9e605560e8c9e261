# cython: language_level=3, freethreading_compatible=True, embedsignature=False
"""The compiled backend "cython": arrays in, C kernels (csrc/) out with the GIL released; no mathematics here.

The functions are those of `elman.backends.reference`, which documents them. Arrays come through the buffer protocol;
what is checked here is only what memory safety needs: dtype, writability and contiguity.
"""

import os

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.buffer cimport Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t

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
    void elman_meet(size_t *come, size_t expected)
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
    cdef elman_layer layer = elman_layer(T=n_steps, B=n_rows, I=n_inputs, H=n_hidden, D=directions, has_tokens=has_tokens)
    cdef elman_plan out
    cdef const elman_kernels *kernels = kernels_double if dtype == "float64" else kernels_float
    return None if kernels.plan(&layer, is_backward, parts, &out) else out


cdef class Buffers:
    """The arrays of one call, held until it ends."""

    cdef Py_buffer views[20]
    cdef int n
    cdef char dtype  # of all reals: 'f' or 'd'

    def __dealloc__(self):
        cdef int i
        for i in range(self.n):
            PyBuffer_Release(&self.views[i])

    cdef Py_buffer *take(self, array, int flags) except NULL:
        cdef Py_buffer *view = &self.views[self.n]
        PyObject_GetBuffer(array, view, flags | PyBUF_FORMAT)
        self.n += 1
        return view

    cdef int check_real(self, Py_buffer *view) except -1:
        cdef char dtype = view.format[0]
        if self.dtype == 0 and (dtype == b"f" or dtype == b"d"):
            self.dtype = dtype
        if dtype != self.dtype:
            raise TypeError("arrays: expected one dtype, float32 or float64, for all")
        return 0

    cdef void *real(self, array, int flags=0) except? NULL:
        """A contiguous array of reals, or NULL for None."""
        if array is None:
            return NULL
        cdef Py_buffer *view = self.take(array, PyBUF_C_CONTIGUOUS | flags)
        self.check_real(view)
        return view.buf

    cdef void *out(self, array) except? NULL:
        return self.real(array, PyBUF_WRITABLE)

    cdef const int64_t *integers(self, array) except? NULL:
        if array is None:
            return NULL
        cdef Py_buffer *view = self.take(array, PyBUF_C_CONTIGUOUS)
        if view.itemsize != sizeof(int64_t):
            raise TypeError("lengths: expected int64")
        return <const int64_t *>view.buf

    cdef elman_rows rows(self, array, int flags=0, bint tokens=False) except *:
        """(T, B, ·) reals with unit stride on the last axis, (T, B) int64 tokens, or no rows for None."""
        cdef elman_rows rows
        rows.data, rows.t_stride, rows.b_stride = NULL, 0, 0
        if array is None:
            return rows
        cdef Py_buffer *view = self.take(array, PyBUF_STRIDES | flags)
        if tokens:
            if view.itemsize != sizeof(int64_t) or view.ndim != 2:
                raise TypeError("tokens: expected (T, B) int64")
        else:
            self.check_real(view)
            if view.ndim != 3 or (view.strides[2] != view.itemsize and view.shape[2] > 1):
                raise ValueError("rows: expected (T, B, n) with unit stride on the last axis")
        rows.data = view.buf
        rows.t_stride, rows.b_stride = view.strides[0] // view.itemsize, view.strides[1] // view.itemsize
        return rows

    cdef elman_rows numbers(self, array) except *:
        """(T, B) reals with any strides, or no rows for None."""
        cdef elman_rows rows
        rows.data, rows.t_stride, rows.b_stride = NULL, 0, 0
        if array is None:
            return rows
        cdef Py_buffer *view = self.take(array, PyBUF_STRIDES)
        self.check_real(view)
        if view.ndim != 2:
            raise ValueError("weights: expected (T, B)")
        rows.data = view.buf
        rows.t_stride, rows.b_stride = view.strides[0] // view.itemsize, view.strides[1] // view.itemsize
        return rows

    cdef const elman_kernels *kernels(self) noexcept:
        return kernels_double if self.dtype == b"d" else kernels_float


cdef int set_layer(elman_layer *layer, Buffers a, x, h_0, weight_ih, weight_hh, bias, activation, lengths, mask, reverse) except -1:
    layer.has_tokens = x.ndim == 2
    layer.x = a.rows(x, 0, layer.has_tokens)
    layer.T, layer.B = a.views[0].shape[0], a.views[0].shape[1]
    layer.h_0 = a.real(h_0)
    layer.weight_ih = a.real(weight_ih)
    layer.D, layer.I, layer.H = weight_ih.shape
    layer.weight_hh = a.real(weight_hh)
    layer.bias = a.real(bias)
    layer.activation = ACTIVATIONS[activation]
    layer.lengths = a.integers(lengths)
    layer.mask = a.real(mask)
    layer.reverse = reverse
    return 0


cdef int check(int status) except -1:
    if status:
        raise MemoryError("no memory for the kernels' scratch")
    return 0


def forward(
    x,
    h_0,
    weight_ih,
    weight_hh,
    bias,
    y,
    h_n,
    *,
    activation,
    lengths=None,
    mask=None,
    reverse=False,
):
    cdef Buffers a = Buffers()
    cdef elman_layer layer
    cdef int status
    set_layer(&layer, a, x, h_0, weight_ih, weight_hh, bias, activation, lengths, mask, reverse)
    layer.y = a.rows(y, PyBUF_WRITABLE)
    layer.h_n = a.out(h_n)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.forward(&layer)
    check(status)


def backward(
    x,
    h_0,
    weight_ih,
    weight_hh,
    y,
    d_y,
    d_h_n,
    delta,
    d_weight_ih,
    d_weight_hh,
    d_bias,
    d_h_0,
    d_x,
    *,
    activation,
    lengths=None,
    mask=None,
    reverse=False,
):
    cdef Buffers a = Buffers()
    cdef elman_layer layer
    cdef int status
    set_layer(&layer, a, x, h_0, weight_ih, weight_hh, None, activation, lengths, mask, reverse)
    layer.y, layer.h_n = a.rows(y), NULL
    layer.d_y, layer.d_h_n = a.rows(d_y), a.real(d_h_n)
    layer.delta = a.rows(delta, PyBUF_WRITABLE)
    layer.d_weight_ih, layer.d_weight_hh, layer.d_bias = a.out(d_weight_ih), a.out(d_weight_hh), a.out(d_bias)
    layer.d_h_0, layer.d_x = a.out(d_h_0), a.rows(d_x, PyBUF_WRITABLE)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.backward(&layer)
    check(status)


def step(x, h, weight_ih, weight_hh, bias, h_next, *, activation):
    # a sequence of one time step
    cdef Buffers a = Buffers()
    cdef elman_layer layer
    cdef Py_buffer *view
    cdef int status
    layer.has_tokens = x.ndim == 1
    view = a.take(x, PyBUF_C_CONTIGUOUS)
    if not layer.has_tokens:
        a.check_real(view)
    elif view.itemsize != sizeof(int64_t):
        raise TypeError("tokens: expected int64")
    layer.T, layer.B, layer.D = 1, view.shape[0], 1
    layer.I, layer.H = weight_ih.shape
    layer.x.data, layer.x.t_stride, layer.x.b_stride = view.buf, 0, 1 if layer.has_tokens else layer.I
    layer.h_0, layer.weight_ih, layer.weight_hh, layer.bias = a.real(h), a.real(weight_ih), a.real(weight_hh), a.real(bias)
    layer.y.data, layer.y.t_stride, layer.y.b_stride = a.out(h_next), 0, layer.H
    layer.activation = ACTIVATIONS[activation]
    layer.reverse, layer.lengths, layer.mask, layer.h_n = 0, NULL, NULL, NULL
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.forward(&layer)
    check(status)


cdef int set_readout(elman_readout *r, Buffers a, h, weight, bias, o) except -1:
    r.h = a.rows(h)
    r.T, r.B = a.views[0].shape[0], a.views[0].shape[1]
    r.weight, r.bias = a.real(weight), a.real(bias)
    r.K, r.O = weight.shape
    r.o = a.rows(o, PyBUF_WRITABLE)
    r.lengths, r.d_h.data = NULL, NULL
    return 0


def readout(h, weight, bias, o):
    cdef Buffers a = Buffers()
    cdef elman_readout r
    cdef int status
    set_readout(&r, a, h, weight, bias, o)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.readout(&r)
    check(status)


def readout_loss(
    h,
    weight,
    bias,
    target,
    o,
    d_h,
    d_weight,
    d_bias,
    *,
    loss,
    scale,
    lengths=None,
    weights=None,
):
    cdef Buffers a = Buffers()
    cdef elman_readout r
    cdef double total = 0
    cdef int status
    set_readout(&r, a, h, weight, bias, o)
    r.loss, r.scale, r.lengths = LOSSES[loss], scale, a.integers(lengths)
    r.target = a.rows(target, 0, target.ndim == 2)
    r.weights = a.numbers(weights)
    r.d_h, r.d_weight, r.d_bias = a.rows(d_h, PyBUF_WRITABLE), a.out(d_weight), a.out(d_bias)
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.readout_loss(&r, &total)
    check(status)
    return total


def transpose(source, target) -> None:
    """Write source (m, n) to target (n, m): faster than NumPy. Both are C-contiguous and do not overlap."""
    cdef Buffers a = Buffers()
    cdef const void *s = a.real(source)
    cdef void *t = a.out(target)
    cdef size_t m = a.views[0].shape[0], n = a.views[0].shape[1]
    if a.views[0].ndim != 2 or a.views[1].ndim != 2 or a.views[1].shape[0] != n or a.views[1].shape[1] != m:
        raise ValueError("target: expected the shape of source, reversed")
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.transpose(m, n, s, t)


def clip_norm(gradient, *, max_norm):
    cdef Buffers a = Buffers()
    cdef void *g = a.out(gradient)
    cdef size_t n = a.views[0].shape[0]
    cdef double most = max_norm, norm = 0
    cdef int status
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        status = k.clip_norm(n, g, most, &norm)
    check(status)
    return norm


def sgd(parameters, gradient, velocity, *, lr, momentum):
    cdef Buffers a = Buffers()
    cdef void *p = a.out(parameters)
    cdef void *g = a.real(gradient)
    cdef void *v = a.out(velocity)
    cdef size_t n = a.views[0].shape[0]
    cdef double c_lr = lr, c_momentum = momentum
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.sgd(n, p, g, v, c_lr, c_momentum)


def adagrad(parameters, gradient, square_sum, *, lr, eps):
    cdef Buffers a = Buffers()
    cdef void *p = a.out(parameters)
    cdef void *g = a.real(gradient)
    cdef void *s = a.out(square_sum)
    cdef size_t n = a.views[0].shape[0]
    cdef double c_lr = lr, c_eps = eps
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.adagrad(n, p, g, s, c_lr, c_eps)


def adam(
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
    cdef void *p = a.out(parameters)
    cdef void *g = a.real(gradient)
    cdef void *m = a.out(mean)
    cdef void *v = a.out(square)
    cdef size_t n = a.views[0].shape[0]
    cdef double c_lr = lr, b1 = beta1, b2 = beta2, c_eps = eps, decay = weight_decay
    cdef int64_t t = step
    cdef const elman_kernels *k = a.kernels()
    with nogil:
        k.adam(n, p, g, m, v, c_lr, b1, b2, c_eps, decay, t)
