"""Gradients on their way back: against PyTorch's autograd through loops that are written out."""

import sys
from typing import Any

import numpy as np
import pytest

import elman

T, B, N, H, L = 7, 3, 2, 5, 2
LENGTHS = [4, 7, 1]


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize("pattern", ["many-to-many", "many-to-one"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_norms_are_those_of_torch(nonlinearity: str, bidirectional: bool, pattern: str, backend: str):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test: pip install torch")
    torch.set_num_threads(1)
    rng, one = np.random.default_rng(0), pattern == "many-to-one"
    model = elman.SequenceModel(
        elman.Features(N), elman.Reals(), pattern=pattern, hidden_size=H, num_layers=L, nonlinearity=nonlinearity,
        bidirectional=bidirectional, dropout=0.5, dtype="float64", seed=1, backend=backend,
    )  # fmt: skip
    x, y = rng.standard_normal((T, B, N)), rng.standard_normal((B, 1) if one else (T, B, 1))
    p = {name: torch.tensor(array) for name, array in model.parameters().items()}
    f = getattr(torch, nonlinearity)
    states: dict[Any, Any] = {}  # by layer, step, row: both directions' states, as a leaf would see them
    total = torch.zeros(())
    for b, n in enumerate(LENGTHS):
        inputs = list(torch.tensor(x[:n, b]))
        for k in range(L):
            columns = []
            for suffix in ["", "_reverse"][: 1 + bidirectional]:
                h, run = torch.zeros(H, dtype=torch.float64), {}
                for t in range(n) if not suffix else reversed(range(n)):
                    w_ih, w_hh, bias = (p[f"{name}_l{k}{suffix}"] for name in ("weight_ih", "weight_hh", "bias"))
                    h = f(w_ih @ inputs[t] + w_hh @ h + bias)
                    h = h.detach().requires_grad_() if not h.requires_grad else h
                    h.retain_grad()
                    run[t] = states[k, t, b, suffix] = h
                columns.append(run)
            inputs = [torch.cat([run[t] for run in columns]) for t in range(n)]
        if one:
            ends = [columns[0][n - 1], *([columns[1][0]] if bidirectional else [])]
            o = p["weight_ho"] @ torch.cat(ends) + p["bias_o"]
            total = total + ((o - torch.tensor(y[b])) ** 2).sum() / B
        else:
            for t in range(n):
                o = p["weight_ho"] @ inputs[t] + p["bias_o"]
                total = total + ((o - torch.tensor(y[t, b])) ** 2).sum() / sum(LENGTHS)
    total.backward()
    squares, flat = np.zeros((L, T)), np.zeros((L, 2))
    for (k, t, _, _), h in states.items():
        squares[k, t] += float((h.grad**2).sum()) if h.grad is not None else 0
        slope = (1 - h**2 if nonlinearity == "tanh" else (h > 0).double()).detach().numpy()
        flat[k] += np.count_nonzero(slope < 0.02), slope.size
    norms, saturated = model.gradient_norms(x, y, lengths=LENGTHS)
    np.testing.assert_allclose(norms, np.sqrt(squares), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(saturated, flat[:, 0] / flat[:, 1])


def test_gradients_vanish_and_with_large_weights_they_explode():
    model = elman.SequenceModel(elman.Features(1), elman.Reals(), pattern="many-to-one", hidden_size=20, seed=0)
    x, y = np.random.default_rng(0).standard_normal((30, 4, 1)), np.ones((4, 1))
    norms, saturated = model.gradient_norms(x, y)
    assert norms.shape == (1, 30)
    assert saturated[0] < 0.1
    for name in ("weight_ih_l0", "weight_hh_l0"):
        model.parameters()[name][...] *= 30
    large_norms, large_saturated = model.gradient_norms(x, y)
    assert large_saturated[0] > 0.8
    assert norms[0, 0] / norms[0, -1] < 0.01
    assert large_norms[0, 0] / large_norms[0, -1] > 1000


def test_matplotlib_is_missing(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name == "elman.plot" or name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what makes an import fail
    with pytest.raises(ImportError, match=r"^elman.plot needs matplotlib: pip install 'elman\[plot\]'$"):
        elman.History(loss=[1.0]).plot()
    monkeypatch.delattr(elman, "plot", raising=False)
    with pytest.raises(AttributeError, match=r"pip install 'elman\[plot\]'"):
        elman.plot  # noqa: B018


def test_gradient_flow_draws_each_layer(tmp_path: Any):
    from elman.plot import gradient_flow

    norms = np.array([[1e-3, 1e-2, 1], [1e-2, 1, 2]])
    figure = gradient_flow(norms, path=tmp_path / "flow.png")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == ["layer 0", "layer 1"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), norms[1])
    assert (tmp_path / "flow.png").read_bytes()[1:4] == b"PNG"


def test_gradient_flow_is_of_norms_alone():
    model = elman.SequenceModel(elman.Features(1), elman.Reals(), hidden_size=4, seed=0)
    found = model.gradient_norms(np.ones((5, 2, 1)), np.ones((5, 2, 1)))
    for wrong in (found, found.saturated, np.ones(5)):
        with pytest.raises(ValueError, match=r"^norms must "):
            elman.plot.gradient_flow(wrong)
