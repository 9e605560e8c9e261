"""Resets in elman.torch: a loop over steps in plain PyTorch, and the pieces run apart."""

from typing import Any

import numpy as np
import pytest

import elman

torch = pytest.importorskip("torch")
import elman.torch  # noqa: E402

T, B, I, H = 9, 4, 3, 6  # noqa: E741
KINDS: list[dict[str, Any]] = [
    {"leak": 0.3},
    {"leak": 0.4, "form": "potential", "nonlinearity": "softplus", "learn_leak": True},
    {"leak": 0.5, "noise": 0.2, "learn_leak": True},
]


def made(n_layers: int, kind: dict[str, Any] | None = None, **options: Any) -> Any:
    torch.manual_seed(1)
    cls = elman.torch.RNN if kind is None else elman.torch.LeakyRNN
    return cls(I, H, n_layers, dtype=torch.float64, **options, **(kind or {}))


def given(n_layers: int) -> tuple[Any, Any, Any]:
    torch.manual_seed(2)
    resets = torch.rand(T, B) < 0.3
    resets[0, 1], resets[3:5, 2] = True, True
    x, hx = torch.randn(T, B, I, dtype=torch.float64), torch.randn(n_layers, B, H, dtype=torch.float64)
    return x.requires_grad_(), hx.requires_grad_(), resets


def stepped(rnn: Any, x: Any, hx: Any, resets: Any) -> tuple[Any, Any]:
    """The loop that takes the place of `resets`."""
    ys, h = [], hx
    for t in range(len(x)):
        h = h * ~resets[t].unsqueeze(1)
        y, h = torch.nn.RNN.forward(rnn, x[t : t + 1], h) if type(rnn) is elman.torch.RNN else rnn(x[t : t + 1], h)
        ys.append(y)
    return torch.cat(ys), h


def gradients(rnn: Any, results: tuple[Any, Any], *inputs: Any) -> list[Any]:
    torch.manual_seed(3)
    loss = sum((part * torch.randn_like(part)).sum() for part in results)
    return list(torch.autograd.grad(loss, [*inputs, *rnn.parameters()], allow_unused=True))


@pytest.mark.parametrize("kind", [None, *KINDS[:2]], ids=str)
@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_loop_over_steps(kind: Any, n_layers: int):
    rnn, (x, hx, resets) = made(n_layers, kind), given(n_layers)
    got, expected = rnn(x, hx, resets=resets), stepped(rnn, x, hx, resets)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    found = gradients(rnn, got, x, hx), gradients(rnn, expected, x, hx)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(rnn(x, hx, resets=resets), got, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [None, *KINDS], ids=str)
def test_forms_of_the_input(kind: Any):
    rnn, (x, hx, resets) = made(2, kind, batch_first=True).eval(), given(2)
    swapped = made(2, kind).eval()
    y, h_n = rnn(x.transpose(0, 1), hx, resets=resets.T)
    expected = swapped(x, hx, resets=resets)
    torch.testing.assert_close((y.transpose(0, 1), h_n), expected, rtol=0, atol=0)
    y, h_n = rnn(x[:, 0], hx[:, 0], resets=resets[:, 0])
    torch.testing.assert_close((y, h_n), (expected[0][:, 0], expected[1][:, 0]), rtol=1e-12, atol=1e-14)
    one = swapped(x[:1], hx, resets=torch.ones(1, B, dtype=torch.bool))
    torch.testing.assert_close(one, swapped(x[:1]), rtol=1e-12, atol=1e-14)


def test_the_layer_of_the_core_has_the_same_bits():
    rnn, (x, hx, resets) = made(2), given(2)
    core = elman.RNN(I, H, 2, dtype="float64")
    core.load_state_dict({name: array.detach().numpy() for name, array in rnn.state_dict().items()})
    y, h_n = core(x.detach().numpy(), hx.detach().numpy(), resets=resets.numpy())
    got = rnn(x, hx, resets=resets)
    np.testing.assert_array_equal(got[0].detach(), y)
    np.testing.assert_array_equal(got[1].detach(), h_n)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # PyTorch's own, in forward mode
@pytest.mark.parametrize("kind", [None, *KINDS], ids=str)
def test_gradients_of_gradients_and_transformations(kind: Any):
    rnn, (x, hx, resets) = made(1, kind), given(1)
    x, hx, resets = x.detach()[:4, :2].requires_grad_(), hx.detach()[:, :2].requires_grad_(), resets[:4, :2]

    def function(x: Any, hx: Any) -> Any:
        torch.manual_seed(5)
        return rnn(x, hx, resets=resets)

    assert torch.autograd.gradcheck(function, (x, hx))
    assert torch.autograd.gradgradcheck(function, (x, hx))
    if kind is not None and kind.get("noise"):
        return
    _, along = torch.func.jvp(function, (x.detach(), hx.detach()), (torch.ones_like(x), torch.ones_like(hx)))
    by_backward = torch.autograd.functional.jvp(function, (x, hx), (torch.ones_like(x), torch.ones_like(hx)))[1]
    torch.testing.assert_close(along, by_backward, rtol=1e-10, atol=1e-12)
    many = torch.func.vmap(lambda r: rnn(x, hx, resets=r)[0])(torch.stack([resets, ~resets]))
    torch.testing.assert_close(many[1], rnn(x, hx, resets=~resets)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [None, KINDS[1]], ids=str)
def test_compiled(kind: Any):
    rnn, (x, hx, resets) = made(2, kind), given(2)
    compiled = torch.compile(lambda x, hx, r: rnn(x, hx, resets=r), backend="aot_eager", fullgraph=True)
    got, expected = compiled(x, hx, resets), rnn(x, hx, resets=resets)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradients(rnn, got, x, hx), gradients(rnn, expected, x, hx), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(compiled(x, hx, ~resets), rnn(x, hx, resets=~resets), rtol=0, atol=0)


def test_dropout_between_layers_and_autocast():
    rnn, (x, hx, resets) = made(2, dropout=0.5), given(2)
    torch.manual_seed(7)
    dropped = rnn(x, hx, resets=torch.zeros_like(resets))
    torch.manual_seed(7)
    torch.testing.assert_close(dropped, rnn(x, hx), rtol=0, atol=0)
    single = elman.torch.RNN(I, H)
    with torch.autocast("cpu", torch.bfloat16):
        assert single(x.detach().bfloat16(), resets=resets)[0].dtype == torch.float32


def test_a_single_step_and_large_layers_have_resets_too():
    """Which without them are PyTorch's own."""
    rnn = elman.torch.RNN(2, 300)
    x, hx = torch.randn(2, 1, 2), torch.randn(1, 1, 300)
    y, _ = rnn(x, hx, resets=torch.tensor([[True], [True]]))
    torch.testing.assert_close(y[1:], rnn(x[1:])[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(y[:1], rnn(x[:1])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [None, KINDS[0]], ids=str)
def test_what_is_refused(kind: Any):
    rnn, (x, hx, resets) = made(1, kind), given(1)
    for wrong, error, message in [
        (resets.long(), TypeError, r"resets must be a tensor of torch.bool, got a tensor of torch.int64: compare"),
        (resets.numpy(), TypeError, r"resets must be a tensor of torch.bool, got an array of bool"),
        (resets.T, ValueError, r"resets must have shape \(9, 4\), on the CPU, got \(4, 9\) on cpu"),
        (resets.to("meta"), ValueError, r"resets must have shape \(9, 4\), on the CPU, got \(9, 4\) on meta"),
    ]:
        with pytest.raises(error, match=message):
            rnn(x, hx, resets=wrong)
    packed = torch.nn.utils.rnn.pack_sequence([x[:, 0].detach()])
    with pytest.raises(ValueError, match="resets must be None where the input is a PackedSequence: give it padded"):
        rnn(packed, resets=resets[:, :1])
    with pytest.raises(ValueError, match="resets must be None with bidirectional=True"):
        made(1, kind, bidirectional=True)(x, resets=resets)


@pytest.mark.parametrize("kind", [None, KINDS[1]], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_exported(kind: Any):
    rnn, (x, hx, resets) = made(2, kind).eval(), given(2)
    program = torch.export.export(rnn, (x.detach(), hx.detach()), {"resets": resets})
    got = program.module()(x.detach(), hx.detach(), resets=~resets)
    torch.testing.assert_close(got, rnn(x, hx, resets=~resets), rtol=0, atol=0)


def test_a_change_in_place_between_the_passes_is_seen():
    rnn, (x, hx, resets) = made(1), given(1)
    y, _ = rnn(x, hx, resets=resets)
    resets[:] = ~resets
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
