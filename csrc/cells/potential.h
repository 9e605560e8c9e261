/* A leaky potential: v = (1 - leak) v[t-1] + leak a, the state, which it keeps; y = f(v). */
enum { potential_has_numbers = 1, potential_has_second = 1, potential_has_carry = 1, potential_state_is_second = 1 };

INLINE vec potential_output(const epilogue *e, size_t row, size_t j, size_t n, vec a, function *f) {
    const vec leak = load_upto(e->numbers + j, n);
    const vec v = fma_(leak, a, (set1(1) - leak) * load_upto(e->before[row] + j, n));
    store_upto(e->second[row] + j, v, n);
    return f(v);
}

INLINE vec potential_delta(const epilogue *e, size_t row, size_t j, size_t n, vec d_y, vec y, gradient *df) {
    const vec leak = load_upto(e->numbers + j, n), v = load_upto(e->second[row] + j, n);
    const vec d_v = df(d_y, y) + load_upto(e->carry[row] + j, n);
    store_upto(e->carry[row] + j, (set1(1) - leak) * d_v, n);
    if (e->d_numbers) /* (v - v[t-1]) / leak is a - v[t-1] */
        add_upto(e->d_numbers[row] + j, d_v * ((v - load_upto(e->before[row] + j, n)) / leak), n);
    return leak * d_v;
}
