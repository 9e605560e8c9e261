"""`torch.nn.RNN`, or a loop over time; for training with `Linear` and PyTorch's own loss, clipping, optimizer."""

from collections.abc import Callable
from typing import Any

from elman.benchmark.program import (
    Program,
    Unsupported,
    by_steps,
    losses,
    only_one_layer,
    only_plain_units,
    only_possible_steps,
)
from elman.benchmark.workloads import CLIP_NORM, LEARNING_RATE, Arrays, Case


def prepare(case: Case, n_threads: int) -> Program:
    import torch

    if case.work.what == "train-rates":
        return of_rates(case, n_threads, _loop)
    return program(case, n_threads, torch.nn.RNN)


def program(case: Case, n_threads: int, layer: Any) -> Program:
    """The case with a layer that has the constructor and the parameters of `torch.nn.RNN`."""
    import torch

    torch.set_num_threads(n_threads)
    work = case.work
    dtype = getattr(torch, work.dtype)
    if work.nonlinearity not in ("tanh", "relu"):
        raise Unsupported(f"torch.nn.RNN has no {work.nonlinearity}")
    if work.dropout or work.what == "fit-many":
        raise Unsupported("dropout and many models are compared with elman's own time without")
    only_possible_steps(case)
    only_plain_units("torch.nn.RNN", case)
    rnn = layer(work.shape.n_inputs, work.shape.n_units, **{**work.options, "dtype": dtype})
    ours = {name: torch.tensor(array) for name, array in case.parameters.items()}
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            parameter.copy_(torch.zeros(()) if name.startswith("bias_hh") else ours[name.replace("bias_ih", "bias")])
    if work.is_model:
        return _of_model(case, rnn, ours)

    x = torch.tensor(case.x, requires_grad=work.what == "both-dx")
    d_y = torch.tensor(case.d_y)

    def both() -> Any:
        rnn.zero_grad()
        x.grad = None
        y, h_n = rnn(x)
        y.backward(d_y)
        return y, h_n

    def results(found: Any) -> Arrays:
        gradients = {
            name.replace("bias_ih", "bias"): p.grad for name, p in rnn.named_parameters() if "bias_hh" not in name
        }
        tensors = {"y": found[0], "h_n": found[1], **gradients, **({} if x.grad is None else {"d_x": x.grad})}
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}

    if work.has_gradients:
        return Program(both, results)
    beside = {"gradient": both} if work.is_single else {}
    if work.what == "step":
        steps = torch.inference_mode()(lambda: by_steps(rnn, x.split(1), None))
        return Program(steps, lambda found: {"y": torch.cat(found[0]).numpy(), "h_n": found[1].numpy()}, beside)
    forward = torch.inference_mode()(lambda: rnn(x))
    return Program(forward, lambda found: {"y": found[0].numpy(), "h_n": found[1].numpy()}, beside)


def _of_model(case: Case, rnn: Any, ours: dict[str, Any]) -> Program:
    import torch
    from torch.nn.functional import cross_entropy, one_hot

    n_tokens, dtype = case.work.shape.n_inputs, getattr(torch, case.work.dtype)
    x, target = torch.tensor(case.x), torch.tensor(case.target)
    readout = torch.nn.Linear(ours["weight_ho"].shape[1], n_tokens, dtype=dtype)
    with torch.no_grad():
        readout.weight.copy_(ours["weight_ho"])
        readout.bias.copy_(ours["bias_o"])

    def outputs(tokens: Any, h: Any) -> Any:
        y, h = rnn(one_hot(tokens, n_tokens).to(dtype), h)
        return readout(y), h

    def loss() -> Any:
        return cross_entropy(outputs(x, None)[0].flatten(0, 1), target.flatten())

    def likeliest(tokens: Any, h: Any) -> Any:
        o, h = outputs(tokens, h)
        return o.argmax(-1), h

    def generated() -> None:
        for token in x[:1].T.split(1):
            h = None
            for _ in range(case.work.shape.n_steps):
                o, h = outputs(token, h)
                token = torch.multinomial(o[0].softmax(-1), 1)

    if case.work.what == "loss":
        run = torch.inference_mode()(lambda: float(loss()))
        return Program(run, losses(run))
    if case.work.what == "stream":
        steps = torch.inference_mode()(lambda: by_steps(likeliest, x.split(1), None))
        return Program(steps, lambda found: {"y": torch.cat(found[0]).numpy(), "h_n": found[1].numpy()})
    if case.work.what == "generate":
        return Program(torch.inference_mode()(generated), lambda _: {})  # drawn by a generator of its own
    return _training(case.work.what, [*rnn.named_parameters(), *readout.named_parameters()], loss)


def of_rates(
    case: Case, n_threads: int, layer: Callable[[Case], tuple[dict[str, Any], Callable[[Any], Any]]]
) -> Program:
    """A training step of leaky, noisy units: of a layer there are its parameters, by our names, and what runs it."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(n_threads)
    only_one_layer("the adapter for PyTorch", case)
    x, target = torch.tensor(case.x), torch.tensor(case.target)
    named, run = layer(case)
    readout = torch.nn.Linear(case.work.shape.n_units, case.work.kinds[1].n, dtype=x.dtype)
    named |= {"weight_ho": readout.weight, "bias_o": readout.bias}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.tensor(case.parameters[name]))

    def loss() -> Any:
        return cross_entropy(readout(run(x)).flatten(0, 1), target.flatten())

    return _training(case.work.what, list(named.items()), loss)


def _loop(case: Case) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Over time, as those write it who train such units in PyTorch."""
    import torch

    work, leak = case.work, case.work.leak
    if work.nonlinearity not in ("tanh", "relu", "sigmoid"):
        raise Unsupported(f"the loop over time has no {work.nonlinearity}")
    f, scale, dtype = getattr(torch, work.nonlinearity), work.noise * (2 / leak) ** 0.5, getattr(torch, work.dtype)
    _, n_rows, n_inputs, n_units = work.shape
    read = torch.nn.Linear(n_inputs, n_units, dtype=dtype)
    recur = torch.nn.Linear(n_units, n_units, bias=False, dtype=dtype)

    def run(x: Any) -> Any:
        h, states = torch.zeros(n_rows, n_units, dtype=dtype), []
        for driven in read(x):
            a = driven + recur(h)
            if scale:
                a = a + scale * torch.randn(n_rows, n_units, dtype=dtype)
            h = (1 - leak) * h + leak * f(a)
            states.append(h)
        return torch.stack(states)

    return {"weight_ih_l0": read.weight, "bias_l0": read.bias, "weight_hh_l0": recur.weight}, run


def _training(what: str, named: list[tuple[str, Any]], loss: Callable[[], Any]) -> Program:
    import torch

    for name, parameter in named:  # two biases would learn at twice the rate of one
        parameter.requires_grad_("bias_hh" not in name)
    parameters = [p for _, p in named if p.requires_grad]
    has_clipping = what == "train"
    optimizer = (torch.optim.SGD if what == "train-sgd" else torch.optim.Adam)(parameters, lr=LEARNING_RATE[what])

    def run() -> float:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        if has_clipping:
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return float(found.detach())

    return Program(run, losses(run))
