/* A cell that remembers: h = (1 - alpha) h[t-1] + alpha f(a), which keeps f(a) for its derivative. */
enum { leaky_has_numbers = 1, leaky_has_second = 1, leaky_has_carry = 1, leaky_state_is_second = 0 };

INLINE vec leaky_output(const epilogue *e, size_t row, size_t j, size_t n, vec a, function *f) {
    const vec alpha = load_upto(e->numbers + j, n), value = f(a);
    store_upto(e->second[row] + j, value, n);
    return fma_(alpha, value, (set1(1) - alpha) * load_upto(e->before[row] + j, n));
}

INLINE vec leaky_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_h, vec h, gradient *df) {
    const vec alpha = load_upto(e->numbers + j, n);
    (void)h;
    d_h += load_upto(e->carry[row] + j, n);
    store_upto(e->carry[row] + j, (set1(1) - alpha) * d_h, n);
    return alpha * df(d_h, load_upto(e->second[row] + j, n));
}
