"""A cell that remembers: h = (1 - alpha) h[t-1] + alpha f(a), which keeps f(a) for its derivative."""


def state(f, before, numbers):
    (alpha,) = numbers
    return (1 - alpha) * before + alpha * f, f


def delta(d_h, h, df, before, second, numbers):  # noqa: ARG001
    (alpha,) = numbers
    return alpha * d_h * df(second), (1 - alpha) * d_h
