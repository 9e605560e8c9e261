"""elman.torch.LeakyRNN against elman.RNN, which test_leaky.py holds against loops, and in what PyTorch does."""

import copy
import io
import pickle
import re
from typing import Any

import numpy as np
import pytest

import elman

torch = pytest.importorskip("torch")
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence  # noqa: E402

import elman.torch  # noqa: E402
from elman import backends  # noqa: E402

T, B, I, H = 7, 4, 3, 5  # noqa: E741
UNITS = np.linspace(0.1, 1, H)
OPTIONS = [
    {},
    {"leak": 1.0},
    {"leak": 1.0, "noise": 0.0, "nonlinearity": "sigmoid"},
    {"noise": 0.0, "bidirectional": True, "bias": False},
    {"num_layers": 2, "leak": [0.3, UNITS], "noise": [0.1, 0.0], "nonlinearity": "softplus"},
    {"num_layers": 3, "bidirectional": True, "learn_leak": True, "dropout": 0.5, "batch_first": True},
    {"input_noise": 0.3, "batch_first": True, "nonlinearity": "retanh"},
    {"leak": 1.0, "noise": 0.0, "input_noise": 0.3, "bidirectional": True, "nonlinearity": "power"},
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def seeded() -> Any:
    return torch.Generator().manual_seed(3)


def layer(dtype: Any = torch.float64, **options: Any) -> elman.torch.LeakyRNN:
    return elman.torch.LeakyRNN(I, H, **{"leak": 0.2, "noise": 0.3, **options}, dtype=dtype)


def data(ours: elman.torch.LeakyRNN, dtype: Any = torch.float64) -> tuple[Any, Any]:
    shape = (B, T, I) if ours.batch_first else (T, B, I)
    h_0 = torch.randn(ours.num_layers * (1 + ours.bidirectional), B, H, dtype=dtype, requires_grad=True)
    return torch.randn(shape, dtype=dtype, requires_grad=True), h_0


def loss_of(results: Any) -> Any:
    """With every output in it, and not the same for all."""
    y, h_n = results
    y = y.data if isinstance(y, PackedSequence) else y
    return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum() + h_n.square().sum()


def plainly(ours: elman.torch.LeakyRNN, *args: Any) -> Any:
    """The same by PyTorch's own operations, which `torch.func` makes the layer take: values and all gradients."""
    own, parameters = [arg for arg in args if isinstance(arg, torch.Tensor)], dict(ours.named_parameters())
    packed = [arg for arg in args if isinstance(arg, PackedSequence)]

    def loss(parameters, own):
        torch.manual_seed(1)  # of dropout
        inputs = [packed[0]._replace(data=own[0]), *own[1:]] if packed else own
        return loss_of(torch.func.functional_call(ours, parameters, tuple(inputs), {"generator": seeded()}))

    own = [packed[0].data, *own] if packed else own
    (d_parameters, d_own), value = torch.func.grad_and_value(loss, argnums=(0, 1))(parameters, own)
    return [value, *d_own, *d_parameters.values()]


def by_kernels(ours: elman.torch.LeakyRNN, *args: Any) -> Any:
    torch.manual_seed(1)
    leaves = [arg.data if isinstance(arg, PackedSequence) else arg for arg in args]
    value = loss_of(ours(*args, generator=seeded()))
    return [value.detach(), *torch.autograd.grad(value, [*leaves, *ours.parameters()])]


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_elman_rnn_and_a_loop_of_pytorch(options: dict[str, Any], form: str):
    ours = layer(form=form, **options)
    x, h_0 = data(ours)
    for one, other in zip(by_kernels(ours, x, h_0), plainly(ours, x, h_0), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    if ours.dropout:
        return
    names = "num_layers", "nonlinearity", "bias", "batch_first", "bidirectional"
    names += "leak", "noise", "form", "learn_leak", "input_noise"
    rnn = elman.RNN(I, H, dtype="float64", **{name: getattr(ours, name) for name in names})
    rnn.load_state_dict(ours.state_dict())
    seeds = torch.randint(2**63 - 1, (B,), generator=seeded()).numpy()
    y, h_n, pullback = rnn.vjp(x.detach().numpy(), h_0.detach().numpy(), noise_seed=seeds)
    found = ours(x, h_0, generator=seeded())
    np.testing.assert_array_equal(found[0].detach().numpy(), y)
    np.testing.assert_array_equal(found[1].detach().numpy(), h_n)
    d_y, d_h_n = torch.randn_like(found[0]), torch.randn_like(found[1])
    d_x, d_h_0, d_params = pullback(d_y.numpy(), d_h_n.numpy())
    torch.autograd.backward(found, [d_y, d_h_n])
    pairs = {"x": (x, d_x), "h_0": (h_0, d_h_0)}
    own = {name: (p, d_params[re.sub("bias_.h", "bias", name)]) for name, p in ours.named_parameters()}
    for name, (leaf, expected) in (pairs | own).items():
        np.testing.assert_allclose(leaf.grad.numpy(), expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "learn_leak": True}, {"input_noise": 0.2}]
)
def test_packed_sequences(form: str, enforce_sorted: bool, options: dict[str, Any]):
    ours = layer(form=form, **options)
    lengths = (7, 5, 5, 1) if enforce_sorted else (5, 1, 7, 5)
    packed = pack_sequence([torch.randn(n, I, dtype=torch.float64) for n in lengths], enforce_sorted=enforce_sorted)
    packed = packed._replace(data=packed.data.requires_grad_())
    _, h_0 = data(ours)
    for one, other in zip(by_kernels(ours, packed, h_0), plainly(ours, packed, h_0), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    padded, _ = pad_packed_sequence(packed)
    y, _ = ours(packed, h_0, generator=seeded())
    rows, _ = pad_packed_sequence(y)
    if not options:  # a row's noise is its own, wherever packing has put it
        whole, _ = ours(padded.detach(), h_0, generator=seeded())
        for b, n in enumerate(lengths):
            assert torch.equal(rows[:n, b], whole[:n, b])
    y_1, h_1 = ours(packed, generator=seeded())
    y_2, h_2 = ours(packed, torch.zeros_like(h_0), generator=seeded())
    assert torch.equal(y_1.data, y_2.data)
    assert torch.equal(h_1, h_2)


def test_noise_is_for_training_and_for_who_asks():
    ours, x = layer(torch.float32), torch.randn(T, B, I)
    torch.manual_seed(5)
    first = ours(x)[0]
    assert not torch.equal(first, ours(x)[0])
    torch.manual_seed(5)
    assert torch.equal(first, ours(x)[0])
    ours.eval()
    assert torch.equal(ours(x)[0], ours(x)[0])
    state = torch.get_rng_state()
    assert torch.equal(ours(x, generator=seeded())[0], ours(x, generator=seeded())[0])
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(ours(x, generator=seeded())[0], ours(x)[0])
    assert torch.equal(ours(x[:, 0], generator=seeded())[0], ours(x[:, :1], generator=seeded())[0][:, 0])
    with pytest.raises(TypeError, match="generator must be"):
        ours(x, generator=3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by PyTorch itself
@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("options", OPTIONS[4:], ids=str)
def test_derivatives_of_derivatives_and_forward(form: str, options: dict[str, Any]):
    ours = layer(form=form, **options).eval()
    x, h_0 = data(ours)
    own = x[:2, :2], h_0[:, :2]

    def run(x, h_0):
        return ours(x, h_0, generator=seeded())

    assert torch.autograd.gradcheck(run, own, check_forward_ad=False)
    assert torch.autograd.gradgradcheck(run, own)
    tangents = tuple(torch.randn_like(one) for one in own)
    _, forward = torch.func.jvp(lambda *a: loss_of(run(*a)), own, tangents)
    d_own = torch.autograd.grad(loss_of(run(*own)), own)
    torch.testing.assert_close(forward, sum((d * t).sum() for d, t in zip(d_own, tangents, strict=True)))


def test_vmap_over_noise():
    ours, x, h_0 = layer(torch.float32, input_noise=0.2), torch.randn(T, 1, I), torch.zeros(1, 1, H)

    def rows(randomness: str) -> Any:
        return torch.vmap(lambda x, h_0: ours(x, h_0)[0], randomness=randomness)(
            x.expand(3, T, 1, I), h_0.expand(3, 1, 1, H)
        )

    one, other, _ = rows("same")
    assert torch.equal(one, other)
    one, other, _ = rows("different")
    assert not torch.equal(one, other)


def test_a_leak_can_be_learned():
    slow = elman.torch.LeakyRNN(I, H, leak=0.1)
    ours = elman.torch.LeakyRNN(I, H, leak=0.9, learn_leak=True)
    assert torch.allclose(torch.sigmoid(ours.leak_l0), torch.tensor(0.9))
    ours.load_state_dict(slow.state_dict(), strict=False)
    x, optimizer = torch.randn(40, 8, I), torch.optim.Adam([ours.leak_l0], 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = (ours(x)[0] - slow(x)[0].detach()).square().mean()
        loss.backward()
        optimizer.step()
    assert torch.allclose(torch.sigmoid(ours.leak_l0), torch.tensor(0.1), atol=0.02)
    ours.reset_parameters()
    assert torch.allclose(torch.sigmoid(ours.leak_l0), torch.tensor(0.9))
    assert all(p.abs().max() <= H**-0.5 for name, p in ours.named_parameters() if "leak" not in name)


@pytest.mark.filterwarnings("ignore:You are using .torch.load:FutureWarning")  # in PyTorch 2.4
def test_it_is_saved_copied_and_read():
    options = {"num_layers": 2, "learn_leak": True, "bidirectional": True, "form": "potential"}
    ours = layer(torch.float32, **options).eval()
    x = torch.randn(T, B, I)
    expected = ours(x, generator=seeded())[0]
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    read, fresh = torch.load(file, weights_only=False), layer(torch.float32, **options)
    pickles = [pickle.loads(pickle.dumps(ours, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    assert pickle.loads(pickle.dumps([elman.torch.LeakyRNN, elman.torch.RNN])) == [
        elman.torch.LeakyRNN,
        elman.torch.RNN,
    ]
    fresh.load_state_dict(ours.state_dict())
    for other in (read, copy.deepcopy(ours), copy.copy(ours), fresh.eval(), *pickles):
        assert torch.equal(other(x, generator=seeded())[0], expected)
        assert repr(other) == repr(ours)
    assert list(ours.state_dict())[-4:] == ["leak_l0", "leak_l0_reverse", "leak_l1", "leak_l1_reverse"]
    assert ours.double().to(torch.float32).leak == 0.2
    rnn = elman.RNN(I, H, 2, bidirectional=True, leak=0.2, noise=0.3, learn_leak=True, form="potential", seed=0)
    state = {name: torch.from_numpy(array) for name, array in rnn.state_dict(pytorch=True).items()}
    ours.load_state_dict(state)
    np.testing.assert_array_equal(ours(x)[0].detach(), rnn(x.numpy())[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["rate", "potential"])
def test_compiled_exported_and_traced(form: str):
    ours = layer(torch.float32, form=form, num_layers=2, learn_leak=True, leak=[0.3, UNITS * 0.9])
    x = torch.randn(T, B, I, requires_grad=True)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    outcomes = []
    for run in (ours, compiled):
        torch.manual_seed(2)
        loss = loss_of(run(x))
        outcomes.append([loss.detach(), *torch.autograd.grad(loss, [x, *ours.parameters()])])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other)
    ours.eval()
    program = torch.export.export(ours, (x.detach(),))
    assert any(node.target is torch.ops.elman.rnn.default for node in program.graph.nodes)
    assert torch.equal(program.module()(x)[0], ours(x)[0])
    assert torch.equal(torch.jit.trace(ours, x.detach())(x)[0], ours(x)[0])
    ours = layer(torch.float32, form=form, input_noise=0.2)  # traced and compiled for other T and B
    traced, compiled = torch.jit.trace(ours, x.detach()[:1], check_trace=False), torch.compile(ours, backend="eager")
    for shape in ((T, B, I), (3, 2, I), (1, 6, I), (5, 6, I)):
        x, outcomes = torch.randn(shape), []
        for run in (ours, traced, compiled):
            torch.manual_seed(1)
            outcomes.append(run(x)[0])
        for other in outcomes[1:]:
            torch.testing.assert_close(outcomes[0], other)
    for own in (layer(torch.float32, batch_first=True), layer(torch.float32, leak=1.0)):
        torch.compile(own, backend="eager", fullgraph=True)(torch.randn(T, B, I))[0].sum().backward()
    model = torch.nn.Sequential(ours)
    assert [node.op for node in torch.fx.symbolic_trace(model).graph.nodes] == ["placeholder", "call_module", "output"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("form", ["rate", "potential"])
def test_onnx_export(form: str, dynamo: bool):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ours, x, file = layer(torch.float32, form=form, num_layers=2).eval(), torch.randn(T, B, I), io.BytesIO()
    torch.onnx.export(ours, (x,), file, dynamo=dynamo)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    for one, other in zip(found, ours(x), strict=True):
        np.testing.assert_allclose(one, other.detach(), atol=1e-6)


def test_backends_agree():
    ours, x = layer(torch.float32, num_layers=2, form="potential"), torch.randn(30, 9, I, requires_grad=True)
    outcomes = []
    for name in backends.available():
        with backends.use_backend(name):
            outcomes.append(by_kernels(ours, x))
    for other in outcomes[1:]:
        for one, two in zip(outcomes[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


def test_accelerate_knows_it():
    model = torch.nn.ModuleDict({"rates": layer(), "rnn": torch.nn.RNN(I, H)})
    report = elman.torch.accelerate(model)
    assert report.own == ("rates",)
    assert elman.torch.restore(model) == ("rnn",)
    assert type(model["rates"]) is elman.torch.LeakyRNN


def test_tensors_are_numbers():
    ours = elman.torch.LeakyRNN(I, H, leak=torch.full((H,), 0.5), noise=torch.tensor(0.25))
    assert (ours.leak, ours.noise) == (((0.5,) * H,), 0.25)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"leak": 0}, ValueError, "leak must be a number above 0"),
        ({"leak": [0.1, 0.2]}, ValueError, "leak must be a number, an array"),
        ({"noise": -1}, ValueError, "noise must"),
        ({"noise": 1e39}, ValueError, "noise must be so small"),
        ({"form": "rates"}, ValueError, "form must be"),
        ({"learn_leak": True, "leak": 1.0}, ValueError, "leak must be below 1"),
        ({"nonlinearity": "gelu"}, ValueError, "nonlinearity must be"),
        ({"dropout": 2}, ValueError, "dropout should be"),
        ({"hidden_size": 0}, ValueError, "hidden_size must be"),
        ({"input_size": 0}, ValueError, "input_size must be"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: Any, message: str):
    with pytest.raises(error, match=message):
        elman.torch.LeakyRNN(**{"input_size": I, "hidden_size": H, **options})


def test_inputs_are_checked_as_pytorch_does():
    ours, theirs = layer(torch.float32), torch.nn.RNN(I, H)
    wrong: list[tuple[Any, ...]] = [
        (torch.ones(T, B, I + 1),), (torch.ones(T, B, I).double(),), (torch.ones(2, 3, 4, 5),), (torch.ones(0, B, I),),
        (torch.ones(T, B, I), torch.ones(1, B, H + 1)), (torch.ones(T, I), torch.ones(1, B, H)), (None,),
    ]  # fmt: skip
    for args in wrong:
        with pytest.raises(Exception) as expected:  # noqa: PT011
            theirs(*args)
        with pytest.raises(type(expected.value)):
            ours(*args)
    y, h_n = ours(torch.ones(T, 0, I))
    assert y.shape, h_n.shape == ((T, 0, H), (1, 0, H))
    with pytest.raises(ValueError, match=r"elman\.torch\.LeakyRNN must have all weights on the CPU"):
        layer(torch.float16)(torch.ones(T, B, I))
    for name in ("noise", "nonlinearity"):
        with pytest.raises(AttributeError):
            setattr(ours, name, 0.5)
