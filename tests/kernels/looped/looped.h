/* A cell whose units each have a loop of their own besides: h = f(a + w h[t-1]). (Li et al., 2018, have no others.) */
enum { looped_has_numbers = 1, looped_has_second = 0, looped_has_carry = 1, looped_state_is_second = 0 };

INLINE vec looped_output(const epilogue *e, size_t row, size_t j, size_t n, vec a, function *f) {
    return f(fma_(load_upto(e->numbers + j, n), load_upto(e->before[row] + j, n), a));
}

INLINE vec looped_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_h, vec h, gradient *df) {
    const vec d_a = df(d_h + load_upto(e->carry[row] + j, n), h);
    store_upto(e->carry[row] + j, load_upto(e->numbers + j, n) * d_a, n);
    if (e->d_numbers) add_upto(e->d_numbers[row] + j, d_a * load_upto(e->before[row] + j, n), n);
    return d_a;
}
