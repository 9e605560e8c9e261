/* A cell that remembers: h = (1 - alpha) h[t-1] + alpha f(a), which keeps f(a) for its derivative. */
enum { leaky_numbers = 1, leaky_second = 1, leaky_carry = 1 };

INLINE vec leaky_state(const epilogue *e, size_t row, size_t j, size_t n, vec f) {
    const real alpha = (real)e->numbers[0];
    store_upto(e->second[row] + j, f, n);
    return fma_(set1(alpha), f, set1(1 - alpha) * load_upto(e->before[row] + j, n));
}

INLINE vec leaky_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_h, vec h, slope *df) {
    const real alpha = (real)e->numbers[0];
    (void)h;
    d_h += load_upto(e->carry[row] + j, n);
    store_upto(e->carry[row] + j, set1(1 - alpha) * d_h, n);
    return set1(alpha) * d_h * df(load_upto(e->second[row] + j, n));
}
