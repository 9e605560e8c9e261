"""elman.torch against torch.nn: on PyTorch's own module inputs, on awkward ones, and in all that PyTorch does."""

import copy
import functools
import gc
import io
import itertools
import multiprocessing
import os
import pickle
import re
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
from elman.torch import passes  # noqa: E402

from . import deviations, programs  # noqa: E402

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
    check(*pair(260, 300), torch.randn(5, 2, 260))  # so large that they are not kept for the backward pass


def test_contiguous_input_is_not_copied():
    from elman.torch.passes import Call, Options, TensorForm

    x = torch.randn(7, 4, 3)
    for batch_first in (False, True):
        call = Call(x, None, [], None, [], [], [], None, None, Options(1, "tanh", True, False, batch_first))
        assert np.shares_memory(TensorForm(call).rows(x), x.numpy())
    for options in ({}, {"batch_first": True}):
        theirs, ours = pair(3, 5, **options)
        y, h_n = ours(x)
        assert y.stride() == theirs(x)[0].stride()  # in whose order dropout is drawn
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


@pytest.mark.filterwarnings("ignore:You are using .torch.load:FutureWarning")  # an older PyTorch's own pickles
def test_copies_and_files():
    x = torch.randn(7, 4, 3)
    ours = elman.torch.RNN(3, 5, num_layers=2)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)]
    assert [type(other) for other in copies] == [elman.torch.RNN, torch.nn.RNN, torch.nn.RNN]
    for other in copies:
        torch.testing.assert_close(other(x)[0], ours(x)[0])
        other.weight_hh_l0.data.zero_()
        assert not torch.allclose(other(x)[0], ours(x)[0])
    shallow = copy.copy(ours)
    assert type(shallow) is elman.torch.RNN
    assert shallow.weight_hh_l0 is ours.weight_hh_l0
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
                return loss.detach()  # LBFGS takes its float: PyTorch 2.8 warns of that of one with a gradient

            for _ in range(5):
                losses.append(float(optimizer.step(closure)))
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
        for given in ((x,), (x[:1],), (x, torch.zeros(1, 4, 5, dtype=torch.bfloat16)), (pack_sequence([x[:, 0]]),)):
            y, h_n = ours(*given)
            assert {(y.data if isinstance(y, PackedSequence) else y).dtype, h_n.dtype} == {torch.float32}
        for dtype in (torch.int64, torch.float64, torch.complex64):
            for module in (torch.nn.RNN(3, 5), ours):
                with pytest.raises((RuntimeError, ValueError)):
                    module(torch.zeros(7, 4, 3).to(dtype))


def test_the_default_device_is_of_no_importance():
    theirs, ours = pair(3, 5, num_layers=2, dropout=0.5)
    x = torch.randn(7, 4, 3)
    packed, outcomes = pack_sequence([x[:, 0], x[:4, 1]]), []
    for module in (theirs, ours):
        torch.manual_seed(1)
        with torch.device("meta"):
            outcomes.append([module(x)[0], module(packed)[1]])
    torch.testing.assert_close(*outcomes)


def test_input_that_is_not_aligned():
    values = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
    x = torch.frombuffer(bytearray(2) + values.tobytes(), dtype=torch.float32, offset=2).view(6, 4, 3)
    assert x.data_ptr() % 4 == 2
    theirs, ours = pair(3, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_inference_tensors():
    with torch.inference_mode():
        x, packed = torch.randn(4, 7, 3), pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    outcomes = []
    for options in ({"batch_first": True}, {}):
        for module in pair(3, 5, **options):
            embedded = torch.nn.Linear(3, 3, bias=False)
            embedded.weight.data.fill_(0.5)
            data = packed._replace(data=embedded(packed.data.clone()))
            with torch.inference_mode(), torch.enable_grad():
                inside = module(x.clone())[0]
            assert not inside.requires_grad
            outcome = [squares(module(data)), inside.clone()]
            if module.batch_first:
                outcome.append(squares(module(x)))
            else:
                with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
                    module(x)
            module.weight_ih_l0.requires_grad_(False)
            for name in ("weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(module, name).requires_grad_(False)
            h_0 = torch.zeros(1, 4, 5, requires_grad=True)
            outcome += torch.autograd.grad(squares(module(x if module.batch_first else x[:4, :4], h_0)), h_0)
            outcomes.append(outcome)
        torch.testing.assert_close(*outcomes[-2:])


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
    assert len(n_packed) == 1 + 4 + 2 + 1  # input, weights without biases, outputs, mask


def squares(found: Any) -> torch.Tensor:
    return sum(one.square().sum() for one in tensors(found))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_of_gradients(options):
    for is_packed, has_h_0 in itertools.product([False, True], repeat=2):
        outcomes = []
        for module in pair(3, 5, **options, dtype=torch.float64):
            torch.manual_seed(1)
            x = torch.randn(4, 4, 3, dtype=torch.float64, requires_grad=True)
            n_states = module.num_layers * (1 + module.bidirectional)
            h_0 = torch.randn(n_states, 4, 5, dtype=torch.float64, requires_grad=True) if has_h_0 else None
            data = pack_padded_sequence(x, torch.tensor([4, 3, 3, 1]), module.batch_first) if is_packed else x
            leaves = [x, *([h_0] if has_h_0 else []), *module.parameters()]
            first = torch.autograd.grad(squares(module(data, h_0)), leaves, create_graph=True)
            outcomes.append([*first, *torch.autograd.grad(squares(first), leaves, allow_unused=True)])
        for found, expected in zip(*outcomes, strict=True):
            torch.testing.assert_close(found, expected)


def connected(module: Any, x: torch.Tensor, how: str) -> torch.Tensor:
    """A loss in which one argument of a call depends on another, or is the same tensor."""
    first, h_n = module(x)
    if how == "carried":
        return squares(module(x, h_n))
    if how == "its own output":
        return squares(module(first))
    if how == "a state of the input":
        return squares(module(x, x[:1].tanh().expand_as(h_n)))
    module.weight_hh_l1 = module.weight_hh_l0
    return squares(module(x))


@pytest.mark.parametrize("how", ["carried", "its own output", "a state of the input", "tied"])
def test_gradients_of_gradients_where_arguments_are_connected(how: str):
    outcomes = []
    for module in pair(5, 5, num_layers=2, dtype=torch.float64):
        torch.manual_seed(1)
        x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
        loss, leaves = connected(module, x, how), [x, *module.parameters()]
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(squares(first), leaves, allow_unused=True)
        total, directions = connected(module, x, how), torch.randn(3, dtype=torch.float64)
        many = torch.autograd.grad(total, leaves, directions, is_grads_batched=True)
        outcomes.append([*first, *second, *many])
    torch.testing.assert_close(*outcomes)


def test_hooks_on_results_that_are_not_used():
    for used in (0, 1):
        for options in ({}, {"batch_first": True, "num_layers": 2, "bidirectional": True}):
            outcomes = []
            for module in pair(3, 5, **options):
                seen, results = [], module(torch.ones(4, 6, 3))
                for i, result in enumerate(results):
                    result.register_hook(lambda d, i=i, seen=seen: seen.append(i) or d.clamp(-1, 1))
                (3 * results[used]).sum().backward()
                outcomes.append([seen, [p.grad for p in module.parameters()]])
            assert outcomes[0][0] == outcomes[1][0] == [used]
            torch.testing.assert_close(outcomes[0][1], outcomes[1][1])


def test_gradients_of_gradients_through_the_operator():
    outcomes = []
    for operator in (True, False):
        torch.manual_seed(1)
        theirs, _ = pair(3, 5, dtype=torch.float64)
        x = torch.randn(7, 4, 3, dtype=torch.float64, requires_grad=True)
        weights = list(theirs.parameters())
        one = torch.ops.elman.rnn(
            x, None, weights, None, [], [], [], None, None, True, 1, "tanh", True, False, False, "elman"
        )
        y = one[0] if operator else theirs(x)[0]
        first = torch.autograd.grad(y.square().sum(), [x, *weights], create_graph=True)
        outcomes.append([*first, *torch.autograd.grad(squares(first), [x, *weights])])
    torch.testing.assert_close(*outcomes)


CHANGES = {
    "relu_": lambda y: y.relu_(),
    "add_": lambda y: y.add_(1),
    "a step": lambda y: y[0].zero_(),
    "masked_fill_": lambda y: y.masked_fill_(y < 0, 0.5),
    "dropout": lambda y: torch.nn.functional.dropout(y, 0.5, inplace=True),
    "data": lambda y: y.data.clamp_(min=0),
    "numpy": lambda y: y.detach().numpy().fill(0.25),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_results_are_the_user_s_to_change(options, change):
    for form in ("batched", "unbatched", "packed", "last states"):
        outcomes = []
        for module in pair(3, 5, **options, dtype=torch.float64):
            torch.manual_seed(1)
            x = torch.randn(4, 4, 3, dtype=torch.float64, requires_grad=True)
            given = x[0] if form == "unbatched" else x
            if form == "packed":
                given = pack_padded_sequence(x, torch.tensor([4, 4, 2, 1]))
            y, h_n = module(given)
            change(h_n if form == "last states" else y.data if form == "packed" else y)
            results = tensors((y, h_n))
            outcomes.append([*results, *torch.autograd.grad(squares(results), [x, *module.parameters()])])
        for found, expected in zip(*outcomes, strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("n_steps", [1, 4])
@pytest.mark.parametrize("frozen", [(), ("weight_ih",), ("weight_hh",), ("weight_ih", "weight_hh"), ("l0",), ("bias",)])
def test_what_pytorch_does_not_read_may_change(n_steps, frozen):
    """In place, before the backward pass: the same is an error, and the same is not."""
    for changed, has_d_x, has_d_h_0 in itertools.product(range(2 + 8), [False, True], [False, True]):
        outcomes = []
        for module in pair(3, 3, num_layers=2, dtype=torch.float64):
            torch.manual_seed(1)
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(not any(part in name for part in frozen))
            x, h_0 = torch.randn(n_steps, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
            inputs = [x.requires_grad_(has_d_x) * 1, h_0.requires_grad_(has_d_h_0) * 1]
            needed = [leaf for leaf in (x, h_0, *module.parameters()) if leaf.requires_grad]
            y, h_n = module(*inputs)
            with torch.no_grad():
                [*inputs, *module.parameters()][changed].add_(1)
            loss = y.square().sum() + h_n.sum()
            outcomes.append(outcome(functools.partial(torch.autograd.grad, loss, needed)))
        if isinstance(outcomes[0], RuntimeError):
            assert isinstance(outcomes[1], RuntimeError), (changed, has_d_x, has_d_h_0)
            assert re.search("modified by an inplace operation|has been modified inplace", str(outcomes[1]))
        else:
            torch.testing.assert_close(*outcomes)


# What traces and transforms


def opcheck_inputs():
    potential = (2, "power", False, True, True, "potential")
    for options in ((1, "tanh", True, False, False, "elman"), (2, "relu", False, True, True, "elman"), potential):
        num_layers, _, has_biases, bidirectional, batch_first, cell = options
        ours = elman.torch.RNN(3, 5, num_layers, bias=has_biases, bidirectional=bidirectional, dtype=torch.float64)
        x = torch.randn(7, 4, 3, dtype=torch.float64, requires_grad=True)
        n_rows, n_states = x.shape[0 if batch_first else 1], num_layers * (1 + bidirectional)
        h_0 = torch.randn(n_states, n_rows, 5, dtype=torch.float64, requires_grad=True)
        masks = [torch.rand(*x.shape[:-1], 10, dtype=torch.float64)] * (num_layers - 1)
        leaks, noises, seeds = [], [], None
        if cell != "elman":
            leaks, noises = ([torch.rand(2, 5, dtype=torch.float64, requires_grad=True)] * 2 for _ in range(2))
            seeds = torch.arange(n_rows)
        resets = None if bidirectional else torch.rand(x.shape[:2]) < 0.3
        yield x, h_0, list(ours.parameters()), None, masks, leaks, noises, seeds, resets, True, *options
    packed = pack_sequence([torch.randn(n, 3) for n in (5, 2)])
    weights = list(elman.torch.RNN(3, 5).parameters())
    settings = 1, "tanh", True, False, False, "elman"
    yield packed.data, torch.zeros(1, 2, 5), weights, packed.batch_sizes, [], [], [], None, None, True, *settings


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
    seen = []

    def backend(module, _):
        calls = [str(node.target) for node in module.graph.nodes if node.op in ("call_function", "call_module")]
        seen.append([target for target in calls if "rnn" in target])
        return module.forward

    model = Model(num_layers=2, dropout=0.5)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x = torch.randn(7, 4, 3)
    for training in (True, False):
        model.train(training)
        torch.testing.assert_close(everything(compiled, x), everything(model, x))
    assert seen in ([["elman.rnn"]] * 2, [["L__self___rnn"]] * 2)  # the latter in PyTorch 2.4: a leaf
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


def outcome(run: Any) -> Any:
    """What a call gives, or its error."""
    try:
        return run()
    except Exception as error:
        return error


TRANSFORMS = {
    "grad": lambda run, x: torch.func.grad(lambda x: squares(run(x)))(x),
    "vjp": lambda run, x: torch.func.vjp(run, x)[1](torch.ones(7, 4, 5, dtype=x.dtype)),
    "jacrev": lambda run, x: torch.func.jacrev(run)(x),
    "jacfwd": lambda run, x: torch.func.jacfwd(run)(x),
    "hessian": lambda run, x: torch.func.hessian(lambda x: squares(run(x)))(x),
    "jvp": lambda run, x: torch.func.jvp(run, (x,), (x,)),
    "vmap": lambda run, x: torch.func.vmap(run)(torch.stack([x, 2 * x])),
    "grads of rows": lambda run, x: torch.func.vmap(torch.func.grad(lambda x: squares(run(x[:, None]))), 1)(x),
    "jacobian": lambda run, x: torch.autograd.functional.jacobian(run, x),
    "vectorized": lambda run, x: torch.autograd.functional.jacobian(run, x, vectorize=True),
    "in forward mode": lambda run, x: torch.autograd.functional.jacobian(
        run, x, vectorize=True, strategy="forward-mode"
    ),
    "hvp": lambda run, x: torch.autograd.functional.hvp(lambda x: squares(run(x)), x, x),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, about what it does slowly
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("by", ["inputs", "weights"])
def test_transforms(transform, by):
    outcomes = []
    for module in pair(3, 5, num_layers=2, dtype=torch.float64):
        torch.manual_seed(1)
        x, h_0 = torch.randn(7, 4, 3, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)

        def of_weight(weight, module=module, x=x, h_0=h_0):
            return torch.func.functional_call(module, {"weight_hh_l0": weight}, (x, h_0))[0]

        def of_input(x, module=module, h_0=h_0):
            return module(x, h_0[:, : x.shape[1]])[0]

        run, where = (of_input, x) if by == "inputs" else (of_weight, module.weight_hh_l0.detach())
        outcomes.append(outcome(functools.partial(transform, run, where)))
    if isinstance(outcomes[0], Exception):
        assert type(outcomes[1]) is type(outcomes[0])
        assert str(outcomes[1]) == str(outcomes[0])
    else:
        torch.testing.assert_close(*outcomes)


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
    assert all("the same\n" in printed for printed, _ in outcomes), outcomes  # Gloo of PyTorch 2.8 prints there, too


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


@pytest.mark.parametrize(
    ("shape", "options", "is_ours"),
    [
        ((1, 4, 3), {}, False),
        ((1, 3), {}, False),
        ((4, 1, 3), {"batch_first": True}, False),
        ((1, 4, 3), {"num_layers": 2, "bidirectional": True}, False),
        ((1, 7, 3), {"batch_first": True}, True),
        ((2, 4, 3), {}, True),
        ((2, 4, 3), {"hidden_size": 300}, False),
        ((3, 4, 3), {"hidden_size": 300}, True),
    ],
)
def test_few_steps_of_large_layers_are_pytorch_s(shape, options, is_ours, monkeypatch):
    seen, backend = [], backends.resolve()
    forward = backend.forward
    monkeypatch.setattr(backend, "forward", lambda *a: (seen.append(1), forward(*a)))
    theirs, ours = pair(3, **{"hidden_size": 5} | options)
    torch.testing.assert_close(ours(torch.ones(shape)), theirs(torch.ones(shape)))
    assert bool(seen) == is_ours


def test_memory_of_results_is_used_again_when_nobody_has_it(monkeypatch):
    ours, x = elman.torch.RNN(3, 64), torch.randn(50, 64, 3)
    first, _ = ours(x)
    first_size = first.numel() * 4
    assert first_size > passes._LEAST
    place, part, row = first.data_ptr(), first.detach()[3:], first.detach().numpy()[4]
    expected = first.detach().clone()
    del first
    others = [ours(2 * x)[0] for _ in range(5)]
    assert place not in [other.data_ptr() for other in others]
    assert torch.equal(part, expected[3:])
    assert np.array_equal(row, expected[4])
    assert len({other.data_ptr() for other in others}) == 5
    del part
    others.append(ours(2 * x)[0])
    assert others[-1].data_ptr() != place
    del row
    with torch.no_grad():
        assert ours(x)[0].data_ptr() == place

    def n_free() -> int:
        return sum(map(len, itertools.chain(*passes._Memory.free.values())))

    monkeypatch.setattr(passes, "_MOST_FREE", n_free() + first_size)
    for _ in range(5):
        elman.torch.RNN(3, 64)(x)
        assert n_free() <= passes._MOST_FREE
    kept = elman.torch.RNN(3, 64, batch_first=True)(x)[0].detach()
    expected = kept.clone()
    ours(x)
    assert torch.equal(kept, expected)


def test_import_of_elman_does_not_import_torch():
    code = "import elman, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pytorch_the_error_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import elman.torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: elman.torch needs PyTorch: pip install 'elman[torch]'" in found.stderr


# Uses and programs, before and after


@pytest.mark.parametrize("layer", deviations.LAYERS)
@pytest.mark.parametrize("use", deviations.USES)
def test_a_program_sees_the_same(use, layer):
    found, is_known = deviations.difference(use, deviations.LAYERS[layer]), deviations.reason(use, layer) is not None
    assert (found is not None) == is_known, found


@pytest.mark.parametrize("program", programs.PROGRAMS)
def test_programs(program):
    plain, accelerated = (programs.losses(program, how, 12) for how in (lambda _: None, elman.torch.accelerate))
    np.testing.assert_allclose(accelerated, plain, rtol=1e-5)


class Exported(torch.nn.Module):
    def __init__(self, is_packed: bool, **options: Any) -> None:
        super().__init__()
        self.is_packed, self.rnn = is_packed, torch.nn.RNN(3, 5, **options)

    def forward(self, x: torch.Tensor, extra: torch.Tensor | None = None) -> Any:
        if not self.is_packed:
            return self.rnn(x, extra)
        y, h_n = self.rnn(pack_padded_sequence(x, extra))
        return torch.nn.utils.rnn.pad_packed_sequence(y)[0], h_n


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("form", ["plain", "both ways", "batch_first", "h_0", "packed"])
def test_onnx_export_is_pytorch_s(form, dynamo):
    onnx = pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
    options = {"both ways": {"num_layers": 2, "bidirectional": True}, "batch_first": {"batch_first": True}}
    plain = Exported(form == "packed", **options.get(form, {})).eval()
    accelerated = copy.deepcopy(plain)
    elman.torch.accelerate(accelerated)
    extra = {"h_0": [torch.randn(1, 4, 5)], "packed": [torch.tensor([7, 5, 2, 1])]}
    axes = {} if dynamo else {"input_names": ["x"], "dynamic_axes": {"x": {0: "T", 1: "B"}}}
    graphs = []
    for model in (plain, accelerated):
        file = io.BytesIO()
        arguments = (torch.ones(7, 4, 3), *extra.get(form, []))
        error = outcome(lambda m=model, a=arguments, f=file: torch.onnx.export(m, a, f, dynamo=dynamo, **axes))
        if isinstance(error, Exception):
            graphs.append(type(error))
            continue
        nodes = onnx.load_from_string(file.getvalue()).graph.node
        graphs.append([(n.op_type, list(map(str, n.attribute)), len(n.input), len(n.output)) for n in nodes])
    del error
    gc.collect()  # of files that PyTorch 2.8 leaves open, while warnings of it are ignored
    assert graphs[0] == graphs[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [elman.torch.RNN, elman.torch.LeakyRNN])
def test_onnx_export_of_a_layer_alone(kind):
    onnx, file = pytest.importorskip("onnx"), io.BytesIO()
    torch.onnx.export(kind(3, 5).eval(), (torch.ones(7, 4, 3),), file, dynamo=False)  # gives all arguments by position
    assert onnx.load_from_string(file.getvalue()).graph.node


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


def test_restore_undoes_it():
    model = torch.nn.ModuleDict({"a": torch.nn.RNN(3, 5), "b": torch.nn.RNN(3, 5), "c": torch.nn.GRU(3, 5)})
    elman.torch.accelerate(model)
    torch.nn.utils.parametrizations.orthogonal(model["b"], "weight_hh_l0", orthogonal_map="cayley")
    x, before = torch.randn(7, 4, 3), dict(model["a"].named_parameters())
    expected = [model[name](x)[0] for name in "ab"]
    assert elman.torch.restore(model) == ("a", "b")
    assert type(model["a"]) is torch.nn.RNN
    assert isinstance(model["b"], torch.nn.RNN)
    assert torch.nn.utils.parametrize.is_parametrized(model["b"])
    assert all(parameter is before[name] for name, parameter in model["a"].named_parameters())
    torch.testing.assert_close([model[name](x)[0] for name in "ab"], expected)
    assert elman.torch.restore(model) == ()
    assert elman.torch.accelerate(model).replaced == ("a",)
    with pytest.raises(TypeError, match="model must be an instance of"):
        elman.torch.restore([model])


def test_a_parametrized_layer_can_be_copied():
    layer, x = torch.nn.RNN(3, 5), torch.randn(7, 4, 3)
    elman.torch.accelerate(layer)
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    accelerated = copy.deepcopy(layer)
    assert isinstance(accelerated, elman.torch.RNN)
    assert elman.torch.restore(layer) == ("",)
    restored = copy.deepcopy(layer)
    assert isinstance(restored, torch.nn.RNN)
    torch.testing.assert_close([accelerated(x), restored(x)], [layer(x)] * 2)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_accelerate_a_layer_itself():
    layer = torch.nn.RNN(3, 5)
    assert repr(elman.torch.accelerate(layer)) == "the model: replaced"
    assert type(layer) is elman.torch.RNN
    assert repr(elman.torch.accelerate(layer)) == "the model: elman's before"
    assert elman.torch.accelerate(layer).own == ("",)
    assert repr(elman.torch.accelerate(torch.nn.Linear(2, 2))) == "no recurrent layers"
    script = torch.jit.script(torch.nn.Sequential(torch.nn.RNN(3, 5)))
    assert list(elman.torch.accelerate(script).left) == ["0"]
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
