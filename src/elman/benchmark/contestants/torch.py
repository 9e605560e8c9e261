"""`torch.nn.RNN`; for a training step with one-hot input, `Linear` and PyTorch's own loss, clipping, optimizer."""

from typing import Any

from elman.benchmark.program import Program, Unsupported, losses
from elman.benchmark.workloads import CLIP_NORM, LEARNING_RATE, Arrays, Case


def prepare(case: Case, n_threads: int) -> Program:
    import torch

    return program(case, n_threads, torch.nn.RNN)


def program(case: Case, n_threads: int, layer: Any) -> Program:
    """The case with a layer that has the constructor and the parameters of `torch.nn.RNN`."""
    import torch

    torch.set_num_threads(n_threads)
    work = case.work
    dtype = getattr(torch, work.dtype)
    if work.nonlinearity not in ("tanh", "relu"):
        raise Unsupported(f"torch.nn.RNN has no {work.nonlinearity}")
    rnn = layer(work.shape.n_inputs, work.shape.n_units, **{**work.options, "dtype": dtype})
    ours = {name: torch.tensor(array) for name, array in case.parameters.items()}
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            parameter.copy_(torch.zeros(()) if name.startswith("bias_hh") else ours[name.replace("bias_ih", "bias")])
    if work.is_training:
        return _training(case, rnn, ours)

    x = torch.tensor(case.x, requires_grad=work.what == "both-dx")
    if work.what == "forward":

        def forward() -> Any:
            with torch.inference_mode():
                return rnn(x)

        return Program(forward, lambda found: {"y": found[0].numpy(), "h_n": found[1].numpy()})

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

    return Program(both, results)


def _training(case: Case, rnn: Any, ours: dict[str, Any]) -> Program:
    import torch
    from torch.nn.functional import cross_entropy, one_hot

    n_tokens, dtype = case.work.shape.n_inputs, getattr(torch, case.work.dtype)
    x, target = torch.tensor(case.x), torch.tensor(case.target)
    readout = torch.nn.Linear(ours["weight_ho"].shape[1], n_tokens, dtype=dtype)
    with torch.no_grad():
        readout.weight.copy_(ours["weight_ho"])
        readout.bias.copy_(ours["bias_o"])
    for name, parameter in rnn.named_parameters():  # two biases would learn at twice the rate of one
        parameter.requires_grad_("bias_hh" not in name)
    parameters = [p for p in (*rnn.parameters(), *readout.parameters()) if p.requires_grad]
    has_clipping = case.work.what == "train"
    optimizer = (torch.optim.Adam if has_clipping else torch.optim.SGD)(parameters, lr=LEARNING_RATE[case.work.what])

    def run() -> float:
        optimizer.zero_grad()
        y, _ = rnn(one_hot(x, n_tokens).to(dtype))
        loss = cross_entropy(readout(y).flatten(0, 1), target.flatten())
        loss.backward()
        if has_clipping:
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return float(loss.detach())

    return Program(run, losses(run))
