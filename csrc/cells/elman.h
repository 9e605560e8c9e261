/* The Elman cell: h = f(a). */
enum { elman_has_numbers = 0, elman_has_second = 0, elman_has_carry = 0, elman_state_is_second = 0 };

INLINE vec elman_output(const epilogue *e, size_t row, size_t j, size_t n, vec a, function *f) {
    return (void)e, (void)row, (void)j, (void)n, f(a);
}

INLINE vec elman_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_h, vec h, gradient *df) {
    return (void)e, (void)row, (void)j, (void)n, df(d_h, h);
}
