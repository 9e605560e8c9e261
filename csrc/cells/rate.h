/* A leaky rate: h = (1 - leak) h[t-1] + leak f(a), which keeps f(a): what h is made of loses it for a small leak. */
enum { rate_has_numbers = 1, rate_has_second = 1, rate_has_carry = 1, rate_state_is_second = 0 };

INLINE vec rate_output(const epilogue *e, size_t row, size_t j, size_t n, vec a, function *f) {
    const vec leak = load_upto(e->numbers + j, n), rate = f(a);
    store_upto(e->second[row] + j, rate, n);
    return fma_(leak, rate, (set1(1) - leak) * load_upto(e->before[row] + j, n));
}

INLINE vec rate_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_h, vec h, gradient *df) {
    (void)h;
    const vec leak = load_upto(e->numbers + j, n), rate = load_upto(e->second[row] + j, n);
    d_h += load_upto(e->carry[row] + j, n);
    store_upto(e->carry[row] + j, (set1(1) - leak) * d_h, n);
    if (e->d_numbers) add_upto(e->d_numbers[row] + j, d_h * (rate - load_upto(e->before[row] + j, n)), n);
    return leak * df(d_h, rate);
}
