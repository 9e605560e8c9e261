"""elman.torch against torch.nn: on PyTorch's own module inputs, on awkward ones, and in all that PyTorch does."""

import copy
import io
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import elman

torch = pytest.importorskip("torch")
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence  # noqa: E402
from torch.utils.dlpack import to_dlpack  # noqa: E402

import elman.torch  # noqa: E402
from elman import backends  # noqa: E402
from elman.backends import native  # noqa: E402

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
OPTIONS = [
    {},
    {"nonlinearity": "relu", "bias": False},
    {"num_layers": 3, "dropout": 0.4},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 1.0},
    {"bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "dropout": 0.5, "nonlinearity": "relu"},
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pair(*args: Any, **kwargs: Any) -> tuple[torch.nn.RNN, elman.torch.RNN]:
    """PyTorch's layer and ours with the same weights."""
    theirs, ours = torch.nn.RNN(*args, **kwargs), elman.torch.RNN(*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in results or arguments."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    return [tensor for item in value or () for tensor in tensors(item)]


def everything(module: torch.nn.Module, *args: Any) -> list[torch.Tensor]:
    """Results, and gradients by all arguments and parameters, of a call with dropout drawn from the same seed."""
    torch.manual_seed(1)
    leaves = [tensor for tensor in tensors(args) if tensor.requires_grad]
    for leaf in (*leaves, *module.parameters()):
        leaf.grad = None
    results = tensors(module(*args))
    torch.manual_seed(2)
    sum((result * torch.randn(result.shape, dtype=result.dtype)).sum() for result in results).backward()
    return [*results, *(leaf.grad for leaf in leaves), *(parameter.grad for parameter in module.parameters())]


def check(theirs: torch.nn.Module, ours: torch.nn.Module, *args: Any) -> None:
    before = [tensor.detach().clone() for tensor in tensors(args)]
    expected, found = everything(theirs, *args), everything(ours, *args)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        bound = TOLERANCE[one.dtype] * max(1, float(other.detach().abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=bound)
    with torch.no_grad():
        torch.manual_seed(1)
        for one, other in zip(tensors(ours(*args)), found, strict=False):
            assert torch.equal(one, other)  # the same bits without a graph
    assert all(map(torch.equal, tensors(args), before))


# PyTorch's own module inputs


def module_info(kind: type) -> Any:
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_modules import module_db

    return next(info for info in module_db if info.module_cls is kind)


PAIRS = [(torch.nn.RNN, elman.torch.RNN), (torch.nn.RNNCell, elman.torch.RNNCell)]


@pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "own"), PAIRS)
def test_module_inputs(kind, own, dtype, training):
    info = module_info(kind)
    is_packed = {"with_packed_sequence": True} if kind is torch.nn.RNN else {}
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training, **is_packed
    )
    assert len(inputs) >= (64 if is_packed else 3)
    for one in inputs:
        options = {**one.constructor_input.kwargs, "dtype": dtype}
        theirs = kind(*one.constructor_input.args, **options).train(training)
        ours = own(*one.constructor_input.args, **options).train(training)
        ours.load_state_dict(theirs.state_dict())
        check(theirs, ours, *one.forward_input.args, *one.forward_input.kwargs.values())


@pytest.mark.parametrize(("kind", "own"), PAIRS)
def test_module_error_inputs(kind, own):
    info = module_info(kind)
    if info.module_error_inputs_func is None:
        pytest.skip(f"there are none for {kind.__name__}")
    for case in info.module_error_inputs_func(info, "cpu", torch.float32, False, False):
        one = case.module_error_input
        if "CONSTRUCTION" in case.error_on.name:
            with pytest.raises(case.error_type, match=case.error_regex):
                own(*one.constructor_input.args, **one.constructor_input.kwargs)
        else:
            module = own(*one.constructor_input.args, **one.constructor_input.kwargs)
            with pytest.raises(case.error_type, match=case.error_regex):
                module(*one.forward_input.args, **one.forward_input.kwargs)


# Inputs in all forms


@pytest.mark.parametrize("backend", elman.available_backends())
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_results_gradients_and_dropout(options, backend):
    with elman.use_backend(backend):
        for training, shape in itertools.product([True, False], [(7, 4, 3), (1, 1, 3)]):
            theirs, ours = (module.train(training) for module in pair(3, 5, **options, dtype=torch.float64))
            x = torch.randn(shape, dtype=torch.float64)
            n_rows = x.shape[0 if ours.batch_first else 1]
            h_0 = torch.randn(ours.num_layers * (1 + ours.bidirectional), n_rows, 5, dtype=torch.float64)
            check(theirs, ours, x)
            check(theirs, ours, x.requires_grad_(), h_0.requires_grad_())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_packed_sequences(options):
    theirs, ours = pair(3, 5, **options)
    h_0 = torch.randn(ours.num_layers * (1 + ours.bidirectional), 4, 5).requires_grad_()
    unsorted = pack_sequence([torch.randn(n, 3) for n in (2, 5, 1, 5)], enforce_sorted=False)
    in_order = pack_padded_sequence(torch.randn(6, 4, 3), torch.tensor([6, 3, 3, 1]))
    for packed in (unsorted, in_order):
        packed.data.requires_grad_()
        check(theirs, ours, packed)
        check(theirs, ours, packed, h_0)
        y, _ = ours(packed)
        assert y.batch_sizes is packed.batch_sizes
        assert y.sorted_indices is packed.sorted_indices


def test_inputs_in_any_memory():
    theirs, ours = pair(3, 5)
    wide = torch.randn(4, 7, 6)
    for x in (
        wide[..., ::2],
        wide[..., :3],
        torch.randn(3, 7, 4).permute(1, 2, 0),
        torch.randn(1, 1, 3).expand(7, 4, 3),
    ):
        check(theirs, ours, x.detach().requires_grad_())
    check(theirs, ours, torch.randn(7, 3), torch.randn(5, 1).t())
    ours(torch.randn(7, 4, 3))[0].sum().backward()  # from a gradient that is one number
    with torch.no_grad():
        x = torch.nn.Parameter(torch.randn(7, 4, 3))
    check(theirs, ours, x)


def test_large_weights_are_transposed_alike():
    check(*pair(130, 140, bidirectional=True), torch.randn(3, 2, 130))
    check(*pair(260, 300), torch.randn(2, 2, 260))  # so large that they are not kept for the backward pass


def test_contiguous_input_is_not_copied():
    from elman.torch.passes import TensorForm

    x = torch.randn(7, 4, 3)
    assert np.shares_memory(TensorForm(None, False).rows(x), x.numpy())
    assert np.shares_memory(TensorForm(None, True).rows(x), x.numpy())
    y, h_n = elman.torch.RNN(3, 5, batch_first=True)(x)
    assert y.is_contiguous()
    assert h_n.data_ptr() != y.data_ptr()


@pytest.mark.parametrize("shape", [(0, 4, 3), (7, 0, 3)])
def test_empty_inputs(shape):
    outcomes = []
    for module in pair(3, 5):
        try:
            outcomes.append([tensor.shape for tensor in module(torch.zeros(shape))])
        except RuntimeError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


BAD = {
    "4-D": lambda: (torch.zeros(1, 2, 3, 3),),
    "1-D": lambda: (torch.zeros(3),),
    "input size": lambda: (torch.zeros(7, 4, 2),),
    "dtype": lambda: (torch.zeros(7, 4, 3, dtype=torch.float64),),
    "integers": lambda: (torch.zeros(7, 4, 3, dtype=torch.int64),),
    "hx 2-D": lambda: (torch.zeros(7, 4, 3), torch.zeros(1, 5)),
    "hx 3-D": lambda: (torch.zeros(7, 3), torch.zeros(1, 1, 5)),
    "hx rows": lambda: (torch.zeros(7, 4, 3), torch.zeros(1, 3, 5)),
    "hx units": lambda: (torch.zeros(7, 4, 3), torch.zeros(1, 4, 6)),
    "hx layers": lambda: (torch.zeros(7, 4, 3), torch.zeros(2, 4, 5)),
    "hx dtype": lambda: (torch.zeros(7, 4, 3), torch.zeros(1, 4, 5, dtype=torch.float64)),
    "packed": lambda: (pack_sequence([torch.zeros(2, 2)]),),
    "packed hx": lambda: (pack_sequence([torch.zeros(2, 3)]), torch.zeros(1, 2, 5)),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_errors_are_pytorch_s(arguments):
    theirs, ours = pair(3, 5)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        theirs(*arguments())
    with pytest.raises(expected.type) as found:
        ours(*arguments())
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((0, 5), {}),
        ((3, -1), {}),
        ((3, 5.0), {}),
        ((3, 5, 0), {}),
        ((3, 5), {"nonlinearity": "sigmoid"}),
        ((3, 5, 1, "tan"), {}),
        ((3, 5), {"bias": 1}),
        ((3, 5), {"batch_first": 0}),
        ((3, 5), {"dropout": 2}),
        ((3, 5), {"proj_size": 2}),
        ((3, 5), {"unknown": 2}),
        ((3,), {}),
        ((3, 5), {"dropout": 0.5}),  # warns
    ],
)
def test_constructor_errors_are_pytorch_s(args, kwargs):
    outcomes = []
    for kind in (torch.nn.RNN, elman.torch.RNN):
        try:
            kind(*args, **kwargs)
        except Exception as error:
            outcomes.append((type(error), str(error)))
        else:
            outcomes.append(None)  # older versions of PyTorch let some pass
    assert outcomes[0] == outcomes[1]


# A module like others


def test_it_is_a_module_with_pytorch_s_names():
    torch.manual_seed(3)
    theirs = torch.nn.RNN(3, 5, 2, "relu", batch_first=True, dropout=0.5, bidirectional=True)
    torch.manual_seed(3)
    ours = elman.torch.RNN(3, 5, 2, "relu", batch_first=True, dropout=0.5, bidirectional=True)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, torch.nn.RNNBase)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))  # drawn alike
    theirs.load_state_dict(ours.state_dict())
    assert ours.all_weights[1][0] is ours.weight_ih_l0_reverse
    assert ours.nonlinearity == "relu"
    assert ours.flatten_parameters() is None


def test_copies_and_files():
    x = torch.randn(7, 4, 3)
    ours = elman.torch.RNN(3, 5, num_layers=2)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)]
    for other in copies:
        assert type(other) is elman.torch.RNN
        assert torch.equal(other(x)[0], ours(x)[0])
        other.weight_hh_l0.data.zero_()
        assert not torch.equal(other(x)[0], ours(x)[0])
    assert torch.equal(ours.double().float()(x)[0], ours(x)[0])
    assert ours.share_memory().weight_hh_l0.is_shared()
    assert torch.equal(ours(x)[0], copy.deepcopy(ours)(x)[0])


def test_training_takes_pytorch_s_path():
    x, target = torch.randn(7, 4, 3), torch.randn(7, 4, 5)
    optimizers = [
        lambda p: torch.optim.Adam(p, 0.05),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.LBFGS(p, max_iter=5),
    ]
    for make in optimizers:
        paths = []
        for module in pair(3, 5, num_layers=2):
            optimizer, losses = make(module.parameters()), []

            def closure(module=module, optimizer=optimizer):
                optimizer.zero_grad()
                loss = (module(x)[0] - target).square().mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
                return loss

            for _ in range(5):
                losses.append(float(optimizer.step(closure).detach()))
            paths.append([*losses, *torch.nn.utils.parameters_to_vector(module.parameters()).tolist()])
        np.testing.assert_allclose(*paths, rtol=1e-3, atol=1e-4)


def test_the_gradients_of_two_biases_share_no_memory():
    ours = elman.torch.RNN(3, 5)
    ours(torch.randn(7, 4, 3))[0].sum().backward()
    assert torch.equal(ours.bias_ih_l0.grad, ours.bias_hh_l0.grad)
    ours.bias_ih_l0.grad.zero_()
    assert ours.bias_hh_l0.grad.abs().sum() > 0


def test_parametrizations():
    theirs, ours = pair(3, 5)
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.orthogonal(module, "weight_hh_l0", orthogonal_map="cayley")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 4, 3)
    for found, expected in zip(everything(ours, x), everything(theirs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_needs_no_gradient_gets_none():
    theirs, ours = pair(3, 5, num_layers=2)
    for module in (theirs, ours):
        module.weight_hh_l0.requires_grad_(False)
        module.bias_ih_l1.requires_grad_(False)
    x = torch.randn(7, 4, 3)
    for found, expected in zip(everything(ours, x), everything(theirs, x), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected)
    for module in (theirs, ours):
        module.requires_grad_(False)
    assert not ours(x)[0].requires_grad
    check_x = x.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(ours(check_x)[1].sum(), check_x), torch.autograd.grad(theirs(check_x)[1].sum(), check_x)
    )


def test_it_runs_on_the_cpu_in_real_numbers():
    ours = elman.torch.RNN(3, 5)
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=f"must have all weights on the CPU.*got {dtype} on cpu: move"):
            ours.to(dtype)(torch.zeros(7, 4, 3, dtype=dtype))
    with pytest.raises(ValueError, match=r"got torch\.float32 on meta"):
        elman.torch.RNN(3, 5, device="meta")(torch.zeros(7, 4, 3, device="meta"))
    ours = ours.float()
    ours.weight_hh_l0.data = ours.weight_hh_l0.data.double()
    with pytest.raises(ValueError, match=r"got torch\.float64"):
        ours(torch.zeros(7, 4, 3))


def test_autocast_leaves_the_weights_dtype():
    ours = elman.torch.RNN(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.nn.Linear(3, 3)(torch.randn(7, 4, 3))
        assert x.dtype == torch.bfloat16
        assert ours(x)[0].dtype == torch.float32


# Autograd


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
def test_gradcheck(options):
    ours = elman.torch.RNN(2, 3, **options, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    n_rows = x.shape[0 if ours.batch_first else 1]
    h_0 = torch.randn(ours.num_layers * (1 + ours.bidirectional), n_rows, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in ours.named_parameters()]

    def run(x, h_0, *weights):
        return torch.func.functional_call(ours, dict(zip(names, weights, strict=True)), (x, h_0))

    assert torch.autograd.gradcheck(run, (x, h_0, *ours.parameters()))


def test_backward_can_be_repeated_and_notices_changes():
    ours, x = elman.torch.RNN(3, 5), torch.randn(7, 4, 3, requires_grad=True)
    y, _ = ours(x)
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], first)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    for change in (ours.weight_hh_l0, ours.weight_ih_l0):
        y, _ = ours(x)
        with torch.no_grad():
            change.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    y, _ = ours(x)
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.filterwarnings("ignore:.torch.cpu.amp:FutureWarning")  # an older PyTorch's own
def test_checkpointing_and_saved_tensor_hooks():
    from torch.utils.checkpoint import checkpoint

    theirs, ours = pair(3, 5, num_layers=2, dropout=0.5)
    x = torch.randn(7, 4, 3, requires_grad=True)
    for module in (theirs, ours):
        torch.manual_seed(0)
        checkpoint(module, x, use_reentrant=False)[0].sum().backward()
    torch.testing.assert_close([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    n_packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: n_packed.append(t) or t, lambda t: t):
        ours(x)
    assert len(n_packed) >= 1 + 2 + 1 + 8  # input, outputs, mask, weights


def test_gradients_of_gradients_are_an_error():
    ours, x = elman.torch.RNN(3, 5), torch.randn(7, 4, 3, requires_grad=True)
    gradient = torch.autograd.grad(ours(x)[0].square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.square().sum().backward()
    weights = list(ours.parameters())
    y, *_ = torch.ops.elman.rnn(x, None, weights, None, [], 1, False, True, False, False)
    gradient = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.square().sum().backward()


# What traces and transforms


def opcheck_inputs():
    for options in ((1, False, True, False, False), (2, True, False, True, True)):
        num_layers, _, has_biases, bidirectional, batch_first = options
        ours = elman.torch.RNN(3, 5, num_layers, bias=has_biases, bidirectional=bidirectional, dtype=torch.float64)
        x = torch.randn(7, 4, 3, dtype=torch.float64, requires_grad=True)
        n_rows, n_states = x.shape[0 if batch_first else 1], num_layers * (1 + bidirectional)
        h_0 = torch.randn(n_states, n_rows, 5, dtype=torch.float64, requires_grad=True)
        masks = [torch.rand(*x.shape[:-1], 10, dtype=torch.float64)] * (num_layers - 1)
        yield x, h_0, list(ours.parameters()), None, masks, *options
    packed = pack_sequence([torch.randn(n, 3) for n in (5, 2)])
    weights = list(elman.torch.RNN(3, 5).parameters())
    yield packed.data, torch.zeros(1, 2, 5), weights, packed.batch_sizes, [], 1, False, True, False, False


@pytest.mark.filterwarnings("ignore")
def test_the_operator_is_what_pytorch_wants():
    for arguments in opcheck_inputs():
        found = torch.library.opcheck(torch.ops.elman.rnn, arguments)
        assert set(found.values()) == {"SUCCESS"}


class Model(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.rnn = elman.torch.RNN(3, 5, **options)
        self.out = torch.nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(torch.tanh(x))[0])


def operators(graph: Any) -> list[str]:
    return [str(node.target) for node in graph.nodes if "elman" in str(node.target)]


@pytest.mark.filterwarnings("ignore")
def test_compile_sees_one_operator():
    graphs = []

    def backend(module, _):
        graphs.append(module.graph)
        return module.forward

    model = Model(num_layers=2, dropout=0.5)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x = torch.randn(7, 4, 3)
    for training in (True, False):
        model.train(training)
        torch.testing.assert_close(everything(compiled, x), everything(model, x))
    assert [operators(graph) for graph in graphs] == [["elman.rnn"]] * 2
    aot = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(everything(aot, x), everything(model, x))
    packed = pack_sequence([torch.randn(n, 3) for n in (5, 2)])
    compiled = torch.compile(model.rnn, backend="eager")
    torch.testing.assert_close(everything(compiled, packed), everything(model.rnn, packed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strict", [True, False])
def test_export_sees_one_operator(strict):
    model, x = Model(bidirectional=False).eval(), torch.randn(7, 4, 3)
    axes = {0: torch.export.Dim("steps", min=2), 1: torch.export.Dim("rows", min=2)}
    program = torch.export.export(model, (x,), dynamic_shapes=(axes,), strict=strict)
    assert operators(program.graph) == ["elman.rnn.default"]
    for shape in ((7, 4, 3), (9, 2, 3)):
        other = torch.randn(shape)
        torch.testing.assert_close(program.module()(other), model(other))


@pytest.mark.filterwarnings("ignore")
def test_traces():
    model, x = Model(), torch.randn(7, 4, 3)
    torch.testing.assert_close(torch.jit.trace(model, (x,))(2 * x), model(2 * x))
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: model(x))(x).graph
    assert operators(graph) == ["elman.rnn.default"]


@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # PyTorch's own, in forward mode
def test_functional_transforms():
    theirs, ours = pair(3, 5, num_layers=2)
    x, h_0 = torch.randn(7, 4, 3), torch.randn(2, 4, 5)

    def loss(parameters, x, module):
        y, h_n = torch.func.functional_call(module, parameters, (x, h_0))
        return y.square().sum() + h_n.sum()

    found, expected = (
        torch.func.grad(loss, argnums=(0, 1))(dict(module.named_parameters()), x, module) for module in (ours, theirs)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    doubled = {name: 2 * parameter for name, parameter in ours.named_parameters()}
    torch.testing.assert_close(loss(doubled, x, ours), loss(doubled, x, theirs))
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(lambda x: ours(x)[0])(torch.randn(2, 7, 4, 3))
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda x: ours(x)[0], (x,), (x,))
    with pytest.raises(RuntimeError, match=r"first derivatives only|vmap"):
        torch.func.hessian(lambda x: ours(x)[0].sum())(x)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        ours(torch.autograd.forward_ad.make_dual(x, x))


# Processes and threads


class Outputs(torch.utils.data.Dataset):
    """What a data set may do: run a network for each item."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> torch.Tensor:
        with torch.no_grad():
            return self.module(torch.full((50, 8, 3), float(i)))[1]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="workers here are not forked")
def test_data_loader_workers_after_fork():
    items = Outputs(elman.torch.RNN(3, 64))
    items[0]  # starts threads, which no child has
    loader = torch.utils.data.DataLoader(items, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), torch.stack([items[i] for i in range(4)]))


DISTRIBUTED = """
import sys, torch, elman.torch
import torch.distributed as dist

rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
torch.manual_seed(0)
models = [torch.nn.RNN(3, 5, 2), elman.torch.RNN(3, 5, 2)]
models[1].load_state_dict(models[0].state_dict())
torch.manual_seed(rank)
x = torch.randn(7, 4, 3)
for model in models:
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(x)[0].square().mean().backward()
        optimizer.step()
for ours, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
    torch.testing.assert_close(ours, theirs)
print("the same", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_distributed_data_parallel(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED, encoding="utf-8")
    command = [sys.executable, "-W", "error::UserWarning:torch.autograd", str(script)]
    variables = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=variables, **pipes) for rank in range(2)
    ]
    outcomes = [rank.communicate(timeout=300) for rank in ranks]
    # Exit statuses do not count: once in some hundred times PyTorch's own threads abort when the interpreter ends.
    assert [printed for printed, _ in outcomes] == ["the same\n"] * 2, outcomes


def test_no_more_threads_than_pytorch_s(threads, monkeypatch):
    threads(2)
    seen, backend = [], backends.resolve()
    forward = backend.forward
    monkeypatch.setattr(backend, "forward", lambda *a: (seen.append(elman.get_num_threads()), forward(*a)))
    before = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            elman.torch.RNN(3, 5)(torch.zeros(7, 4, 3))
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]
    assert elman.get_num_threads() == 2


def test_import_of_elman_does_not_import_torch():
    code = "import elman, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pytorch_the_error_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import elman.torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: elman.torch needs PyTorch: pip install 'elman[torch]'" in found.stderr


# accelerate


class Subclass(torch.nn.RNN):
    pass


def test_accelerate_replaces_in_place():
    model = torch.nn.ModuleDict(
        {
            "rnn": torch.nn.RNN(3, 5, dropout=0.5, num_layers=2),
            "inner": torch.nn.ModuleDict({"rnn": torch.nn.RNN(5, 5, batch_first=True), "gru": torch.nn.GRU(5, 5)}),
            "own": Subclass(3, 5),
            "cell": torch.nn.RNNCell(3, 5),
            "small": torch.nn.RNN(3, 5, dtype=torch.bfloat16),
            "parametrized": torch.nn.utils.parametrizations.weight_norm(torch.nn.RNN(3, 5), "weight_hh_l0"),
            "out": torch.nn.Linear(5, 5),
        }
    )
    rnn, weight, calls = model["rnn"], model["rnn"].weight_hh_l0, []
    rnn.register_forward_hook(lambda *_: calls.append("hook"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(7, 4, 3)
    expected = everything(rnn, x)
    report = elman.torch.accelerate(model)
    assert report.replaced == ("rnn", "inner.rnn")
    assert set(report.left) == {"inner.gru", "own", "cell", "small", "parametrized"}
    assert "bfloat16" in report.left["small"]
    assert repr(report).splitlines()[0] == "rnn: replaced"
    assert "inner.gru: left, elman has no GRU" in repr(report)
    assert model["rnn"] is rnn
    assert rnn.weight_hh_l0 is weight
    calls.clear()
    for found, wanted in zip(everything(rnn, x), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert calls == ["hook"]
    before = rnn(x)[0].detach()
    optimizer.step()
    assert not torch.equal(rnn(x)[0], before)
    assert elman.torch.accelerate(model).replaced == ()
    assert type(copy.deepcopy(model)["rnn"]) is elman.torch.RNN


def test_accelerate_a_layer_itself():
    layer = torch.nn.RNN(3, 5)
    assert repr(elman.torch.accelerate(layer)) == "the model: replaced"
    assert type(layer) is elman.torch.RNN
    assert repr(elman.torch.accelerate(torch.nn.Linear(2, 2))) == "no recurrent layers"
    with pytest.raises(TypeError, match=r"model must be an instance of torch\.nn\.modules\.module\.Module, got 3"):
        elman.torch.accelerate(3)


@pytest.mark.parametrize(
    "tensors",
    [
        [torch.ones(3, 2), torch.ones(3), torch.ones(3)],  # not reversed
        [torch.ones(2, 3), torch.ones(2), torch.ones(3)],
        [torch.ones(2, 3), torch.ones(3), torch.ones(3, 1)],
        [torch.ones(3, 2).T, torch.ones(3), torch.ones(3)],
        [torch.ones(2, 3, dtype=torch.float64), torch.ones(3), torch.ones(3)],
        [torch.ones(2, 3, dtype=torch.int32), torch.ones(3), torch.ones(3)],
        [torch.ones(2, 3), torch.ones(6)[::2], torch.ones(3)],
    ],
)
def test_tensors_that_do_not_fit_reach_no_kernel(tensors):
    arrays = [np.zeros((3, 2), np.float32), np.zeros(3, np.float32)]
    native.from_tensors(arrays, [to_dlpack(t) for t in (torch.arange(6.0).reshape(2, 3), torch.ones(3), torch.ones(3))])
    assert arrays[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert arrays[1].tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="tensors: expected them contiguous"):
        native.from_tensors(arrays, [to_dlpack(t) for t in tensors])
    with pytest.raises(ValueError, match="arrays: expected"):
        native.from_tensors([np.zeros((1, 2, 3), np.float32)], [to_dlpack(torch.ones(3, 2, 1))] * 2)
