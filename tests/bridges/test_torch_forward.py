"""Forward mode of PyTorch's over the kernels: values, what has run, and what others do with the results."""

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch.autograd import forward_ad  # noqa: E402

import elman.torch  # noqa: E402
from elman.torch import duals  # noqa: E402

# PyTorch's own, where its forward mode decomposes operators
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True, "nonlinearity": "relu"},
    {"bias": False, "batch_first": True, "num_layers": 2},
]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tangents the kernels have been asked for, call by call."""
    counts: list[int] = []
    run = duals.moved

    def counted(call: Any, tangents: Any, n: int) -> Any:
        counts.append(n)
        return run(call, tangents, n)

    monkeypatch.setattr(duals, "moved", counted)
    return counts


def pair(**options: Any) -> tuple[Any, Any]:
    """Ours and PyTorch's, with the same weights."""
    theirs = torch.nn.RNN(3, 5, **options, dtype=torch.float64)
    ours = elman.torch.RNN(3, 5, **options, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def data(options: dict[str, Any]) -> tuple[Any, Any]:
    """x and h_0."""
    n_states = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    return torch.randn(7, 4, 3, dtype=torch.float64), torch.randn(
        n_states, 7 if options.get("batch_first") else 4, 5, dtype=torch.float64
    )


def close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_jvp_by_everything(options: dict[str, Any], runs: list[int]):
    ours, theirs = pair(**options)
    own = {name: one.detach() for name, one in theirs.named_parameters()}
    primals = (own, *data(options))
    tangents = ({name: torch.randn_like(one) for name, one in own.items()}, *map(torch.randn_like, primals[1:]))
    got, expected = (
        torch.func.jvp(lambda w, *of, m=module: torch.func.functional_call(m, w, of), primals, tangents)
        for module in (ours, theirs)
    )
    close(got, expected)
    assert runs == [1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_many_at_once(options: dict[str, Any], runs: list[int]):
    ours, theirs = pair(**options)
    x, h_0 = data(options)
    got, expected = (torch.func.jacfwd(lambda h, m=module: m(x, h))(h_0) for module in (ours, theirs))
    close(got, expected)
    assert runs == [h_0.numel()]
    tangents = torch.randn(6, *x.shape, dtype=torch.float64)
    (y, h_n), (d_y, d_h_n) = torch.func.vmap(lambda t: torch.func.jvp(ours, (x, h_0), (t, h_0)))(tangents)
    for k, tangent in enumerate(tangents):  # of many at once PyTorch knows no more than it has to
        expected = torch.func.jvp(theirs, (x, h_0), (tangent, h_0))
        close(((y[k], h_n[k]), (d_y[k], d_h_n[k])), expected)
    assert runs[1:] == [6]


def test_dual_numbers_unbatched_and_packed(runs: list[int]):
    ours, theirs = pair(num_layers=2)
    for x in (torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, 3, dtype=torch.float64)):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            got, expected = ([forward_ad.unpack_dual(one) for one in module(dual)] for module in (ours, theirs))
            close([tuple(one) for one in got], [tuple(one) for one in expected])
    whole = torch.nn.utils.rnn.pack_sequence([torch.ones(n, 3) for n in (6, 1, 4)], enforce_sorted=False)
    x = torch.randn(11, 3, dtype=torch.float64)

    def packed(module: Any, x: Any) -> Any:
        y, h_n = module(torch.nn.utils.rnn.PackedSequence(x, *whole[1:]))
        return y.data, h_n

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        got, expected = ([tuple(forward_ad.unpack_dual(one)) for one in packed(m, dual)] for m in (ours, theirs))
        close(got, expected)
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("n", [1, 3])
def test_backwards_from_there(n: int, runs: list[int]):
    ours, theirs = pair(num_layers=2)
    x, results = torch.randn(5, 2, 3, dtype=torch.float64), []
    tangents = torch.randn(n, 5, 2, 3, dtype=torch.float64)
    for module in (ours, theirs):
        own = x.clone().requires_grad_()
        if n == 1:
            y, d_y = torch.func.jvp(lambda x, m=module: m(x)[0], (own,), (tangents[0],))
        else:
            y, d_y = torch.func.vmap(lambda t, m=module, x=own: torch.func.jvp(lambda x: m(x)[0], (x,), (t,)))(tangents)
        loss = (d_y**2).sum() + (y**3).sum()
        gradients = torch.autograd.grad(loss, [own, *module.parameters()], create_graph=True)
        total = sum((one**2).sum() for one in gradients)
        results.append((gradients, torch.autograd.grad(total, [own, *module.parameters()])))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    assert runs == [n]


def test_what_the_kernels_do_not_know(runs: list[int]):
    ours, theirs = pair(num_layers=2)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for transform in (
        lambda run: torch.func.hessian(lambda x: (run(x) ** 2).sum())(x[:2]),
        lambda run: torch.func.jvp(lambda x: torch.func.jvp(run, (x,), (x,))[1], (x,), (x,)),
    ):
        torch.testing.assert_close(*(transform(lambda x, m=module: m(x)[0]) for module in (ours, theirs)))
    assert runs == []


def test_dropout_draws_once():
    ours, theirs = pair(num_layers=2, dropout=0.5)
    x, results = torch.randn(5, 2, 3, dtype=torch.float64), []
    for module in (ours, theirs):
        torch.manual_seed(3)
        results.append((torch.func.jvp(lambda x, m=module: m(x)[0], (x,), (x,)), torch.rand(1)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("form", ["rate", "potential"])
def test_leaky_layers(form: str, runs: list[int], monkeypatch: pytest.MonkeyPatch):
    ours = elman.torch.LeakyRNN(3, 5, 2, leak=0.3, form=form, noise=0.2, learn_leak=True, dtype=torch.float64).eval()
    x = torch.randn(7, 4, 3, dtype=torch.float64)

    def run(x: Any) -> Any:
        return ours(x, generator=torch.Generator().manual_seed(1))

    found = torch.func.jvp(run, (x,), (x,))
    assert runs == [1]
    monkeypatch.setattr(elman.torch.recurrent, "forward_mode", lambda _: None)
    close(found, torch.func.jvp(run, (x,), (x,)))


def test_no_warnings_of_ours():
    ours, _ = pair()
    x = torch.randn(7, 4, 3, dtype=torch.float64)
    torch.func.jvp(ours, (x,), (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.func.jvp(ours, (x,), (x,))
