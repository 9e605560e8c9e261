/* A cell without numbers of its own: h = h[t-1] + f(a), which keeps f(a) for its derivative. */
enum { residual_has_numbers = 0, residual_has_second = 1, residual_has_carry = 1, residual_state_is_second = 0 };

INLINE vec residual_output(const epilogue *e, size_t row, size_t j, size_t n, vec a, function *f) {
    const vec value = f(a);
    store_upto(e->second[row] + j, value, n);
    return load_upto(e->before[row] + j, n) + value;
}

INLINE vec residual_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_h, vec h, gradient *df) {
    (void)h;
    d_h += load_upto(e->carry[row] + j, n);
    store_upto(e->carry[row] + j, d_h, n);
    return df(d_h, load_upto(e->second[row] + j, n));
}
