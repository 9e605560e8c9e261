"""What a program sees that uses `torch.nn.RNN`, before and after `elman.torch.accelerate`:

    python tests/bridges/deviations.py [PART OF A NAME ...]

Each use is one line. Values, gradients, types and texts of errors, warnings, attributes and files are compared; what
differs is printed and is the exit status. `test_torch_bridge.py` runs the same.
"""

# ruff: noqa: ARG005 - all uses are called alike

from __future__ import annotations

import copy
import io
import itertools
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, jacfwd, jacrev, vmap
from torch.nn.functional import dropout
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import elman.torch

Layer = Any  # a torch.nn.RNN, or what has become of it
T, B, I, H = 6, 4, 3, 5  # noqa: E741
LENGTHS = torch.tensor([6, 4, 4, 1])


def packed(x: torch.Tensor, m: Layer) -> PackedSequence:
    return pack_padded_sequence(x, LENGTHS, batch_first=m.batch_first)


def saved(value: Any, *allowed: Any) -> Any:
    """From a file, with only what PyTorch and the caller allow in it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    if not allowed:
        return torch.load(file, weights_only=False)
    torch.serialization.add_safe_globals([*allowed, set])  # which PyTorch 2.4 asks for
    try:
        return torch.load(file, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()


def in_place(change: Callable[[torch.Tensor], Any]) -> Callable[[Layer, torch.Tensor], torch.Tensor]:
    """The loss of outputs that have been changed."""

    def run(m: Layer, x: torch.Tensor) -> torch.Tensor:
        y = m(x)[0]
        change(y)
        return y.square().sum()

    return run


def loss(m: Layer, x: torch.Tensor, h_0: torch.Tensor | None = None) -> torch.Tensor:
    y, h_n = m(x, h_0)
    return y.square().sum() + h_n.sum()


def by_weights(m: Layer, x: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    return lambda weights: functional_call(m, weights, (x,))[0]


def penalty(m: Layer, x: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(m(x)[0].sum(), x, create_graph=True)
    return loss(m, x) + (gradient.norm(dim=-1) - 1).square().mean()


def twice(m: Layer, x: torch.Tensor) -> Any:
    y = m(x)[0]
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)
    return first, torch.autograd.grad(y.sum(), x), torch.autograd.grad(y.sum(), x)  # the last raises


def after_a_change(of: Callable[[Layer, torch.Tensor], torch.Tensor]) -> Callable[[Layer, torch.Tensor], Any]:
    """The gradient by the input, one tensor having been changed between the passes."""

    def run(m: Layer, x: torch.Tensor) -> Any:
        given = x * 1
        y = m(given)[0]
        with torch.no_grad():
            of(m, given).add_(1)
        return torch.autograd.grad(y.square().sum(), [x, *(p for p in m.parameters() if p.requires_grad)])

    return run


def frozen(part: str, run: Callable[[Layer, torch.Tensor], Any]) -> Callable[[Layer, torch.Tensor], Any]:
    def with_frozen(m: Layer, x: torch.Tensor) -> Any:
        for name, parameter in m.named_parameters():
            parameter.requires_grad_(part not in name)
        return run(m, x)

    return with_frozen


def hooked(m: Layer, x: torch.Tensor) -> Any:
    seen: list[Any] = []
    m.register_forward_pre_hook(lambda _, args: seen.append(len(args)))
    m.register_forward_hook(lambda _, args, out: seen.append((len(args), len(out))))
    m.register_full_backward_hook(lambda _, d_in, d_out: seen.append((len(d_in), len(d_out))))
    m.weight_hh_l0.register_hook(lambda d: d * 2)
    loss(m, x).backward()
    return seen, m.weight_hh_l0.grad


def on_another_device(m: Layer, x: torch.Tensor) -> torch.Tensor:
    with torch.autograd.graph.save_on_cpu():
        return loss(m, x)


def in_meta(m: Layer, x: torch.Tensor) -> Any:
    with torch.device("meta"):
        return loss(m, x)


def averaged(m: Layer, x: torch.Tensor) -> Any:
    model = torch.optim.swa_utils.AveragedModel(nn.utils.parametrizations.weight_norm(m, "weight_hh_l0"))
    model.update_parameters(m)
    return loss(model, x)


def carried(m: Layer, x: torch.Tensor) -> Any:
    _, h = m(x)
    return torch.autograd.grad(loss(m, x, h), [x, *m.parameters()], create_graph=True)


def clamped(m: Layer, x: torch.Tensor) -> Any:
    for one in (results := m(x)):
        one.register_hook(lambda d: d.clamp(-1, 1))
    return results[0].square().sum()


def steps(m: Layer, x: torch.Tensor) -> torch.Tensor:
    h, total = None, torch.zeros((), dtype=x.dtype)
    for x_t in x.split(1, dim=1 if m.batch_first else 0):
        y, h = m(x_t, h)
        total = total + y.sum()
    return total


def dropped_weight(m: Layer, x: torch.Tensor) -> torch.Tensor:
    raw = m.weight_hh_l0
    del m._parameters["weight_hh_l0"]
    m.weight_hh_l0 = dropout(raw, 0.5)
    m._flat_weights = [getattr(m, name) for name in m._flat_weights_names]
    return loss(m, x)


def ddp_like(m: Layer, x: torch.Tensor) -> Any:
    twin = copy.deepcopy(m)
    for module in (m, twin):
        loss(module, x).backward()
    return [(a.grad + b.grad) / 2 for a, b in zip(m.parameters(), twin.parameters(), strict=True)]


def trained(m: Layer, x: torch.Tensor) -> Any:
    optimizer = torch.optim.Adam(m.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss(m, x.detach()).backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        optimizer.step()
    return list(m.parameters())


def dual(m: Layer, x: torch.Tensor) -> Any:
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(m(torch.autograd.forward_ad.make_dual(x.detach(), x.detach()))[0])


def graph(m: Layer) -> list[Any]:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = m

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0].relu()

    return [(node.op, str(node.target)) for node in torch.fx.symbolic_trace(Model()).graph.nodes]


def batched(m: Layer, x: torch.Tensor) -> Any:
    y = m(x)[0]
    return torch.autograd.grad(y, [x, *m.parameters()], torch.randn(3, *y.shape, dtype=x.dtype), is_grads_batched=True)


def by_vmap(m: Layer, x: torch.Tensor) -> Any:
    y, weights = m(x)[0], list(m.parameters())
    of_one = vmap(lambda v: torch.autograd.grad(y, weights, v, retain_graph=True), chunk_size=2)
    return of_one(torch.randn(3, *y.shape, dtype=x.dtype))


USES: dict[str, Callable[[Layer, torch.Tensor], Any]] = {
    "call": lambda m, x: m(x),
    "backward": loss,
    "h_0": lambda m, x: loss(m, x, torch.ones(states(m), dtype=x.dtype, requires_grad=True)),
    "unbatched": lambda m, x: m(x[0])[0].square().sum(),
    "unbatched, h_0": lambda m, x: m(x[0], torch.ones(states(m)[::2], dtype=x.dtype))[1].square().sum(),
    "one step": lambda m, x: loss(m, x[:1]),
    "step by step": steps,
    "packed": lambda m, x: m(packed(x, m)),
    "packed, padded again": lambda m, x: pad_packed_sequence(m(packed(x, m))[0], m.batch_first)[0].square().sum(),
    "packed, unsorted": lambda m, x: m(pack_sequence([x[:2, 0], x[:5, 1], x[:3, 2]], enforce_sorted=False))[1].sum(),
    "no_grad": lambda m, x: torch.no_grad()(m)(x),
    "inference_mode": lambda m, x: torch.inference_mode()(m)(x),
    "eval": lambda m, x: m.eval()(x),
    "a slice of the input": lambda m, x: loss(m, torch.cat([x, x], -1)[..., ::2]),
    "an expanded input": lambda m, x: loss(m, x[:1, :1].expand(T, B, I)),
    "no steps": lambda m, x: m(x[:0]),
    "no rows": lambda m, x: m(x[:, :0]),
    "2 inputs where there are 3": lambda m, x: m(x[..., :2]),
    "another dtype": lambda m, x: m(x.float()),
    "h_0 of another shape": lambda m, x: m(x, torch.zeros(1, 2, 3, dtype=x.dtype)),
    "4 axes": lambda m, x: m(x[None]),
    "a list": lambda m, x: m([x]),
    "float16": lambda m, x: m.half()(x.half()),
    "relu_": in_place(lambda y: y.relu_()),
    "+=": in_place(lambda y: y.__iadd__(1)),
    "a row set to 0": in_place(lambda y: y.__setitem__(0, 0)),
    "masked_fill_": in_place(lambda y: y.masked_fill_(y < 0, 0.5)),
    "dropout in place": in_place(lambda y: dropout(y, 0.5, inplace=True)),
    ".data": in_place(lambda y: y.data.clamp_(min=0)),
    "detach().numpy()": in_place(lambda y: y.detach().numpy().fill(0.25)),
    "detach_": in_place(lambda y: y.detach_()),
    "last states in place": lambda m, x: m(x)[1].relu_().sum(),
    "a packed result in place": lambda m, x: m(packed(x, m))[0].data.relu_().sum(),
    "dropout after it": lambda m, x: dropout(m(x)[0], 0.5).sum(),
    "view after it": lambda m, x: m(x)[0].view(-1).sum(),
    "twice backward": twice,
    "input changed": after_a_change(lambda m, x: x),
    "input changed, weight_ih frozen": frozen("weight_ih", after_a_change(lambda m, x: x)),
    "weight_ih changed": after_a_change(lambda m, x: m.weight_ih_l0),
    "weight_hh changed": after_a_change(lambda m, x: m.weight_hh_l0),
    "bias changed": after_a_change(lambda m, x: m.bias_hh_l0),
    "all frozen": frozen("", loss),
    "first layer frozen": frozen("l0", loss),
    "gradient penalty": penalty,
    "hvp": lambda m, x: torch.autograd.functional.hvp(lambda x: loss(m, x), x.detach(), torch.ones_like(x)),
    "third derivatives": lambda m, x: torch.autograd.grad(penalty(m, x), x, create_graph=True)[0].square().sum(),
    "is_grads_batched": batched,
    "vmap over backward": by_vmap,
    "jacrev": lambda m, x: jacrev(lambda x: m(x)[1])(x.detach()),
    "jacfwd": lambda m, x: jacfwd(lambda x: m.eval()(x)[1])(x.detach()),
    "hessian": lambda m, x: torch.func.hessian(lambda x: loss(m.eval(), x))(x.detach()),
    "vmap": lambda m, x: vmap(lambda x: m(x)[0])(torch.stack([x, x])),
    "jacrev by weights": lambda m, x: jacrev(by_weights(m, x))(dict(m.named_parameters())),
    "functional_call": lambda m, x: by_weights(m, x)({k: 2 * p for k, p in m.named_parameters()}).sum(),
    "per-sample gradients": lambda m, x: vmap(
        torch.func.grad(lambda x: m(x[:, None])[0].square().sum()), 0 if m.batch_first else 1
    )(x.detach()),
    "forward mode": dual,
    "gradcheck": lambda m, x: torch.autograd.gradcheck(lambda x: m.eval()(x)[0], x[:2, :2].detach().requires_grad_()),
    "gradgradcheck": lambda m, x: torch.autograd.gradgradcheck(
        lambda x: m.eval()(x)[0], x[:2, :2].detach().requires_grad_()
    ),
    "checkpoint": lambda m, x: checkpoint(lambda x: m(x)[0], x, use_reentrant=False).square().sum(),
    "saved on another device": on_another_device,
    "autocast": lambda m, x: torch.autocast("cpu", torch.bfloat16)(m.float())(x.float())[0].float().sum(),
    "hooks": hooked,
    "weights dropped": dropped_weight,
    "parametrized": lambda m, x: loss(nn.utils.parametrizations.orthogonal(m, "weight_hh_l0"), x),
    "weight_norm": lambda m, x: loss(nn.utils.parametrizations.weight_norm(m, "weight_hh_l0"), x),
    "pruned": lambda m, x: loss(prune.l1_unstructured(m, "weight_hh_l0", 0.5), x),
    "weights tied": lambda m, x: (setattr(m, "bias_hh_l0", m.bias_ih_l0), loss(m, x))[1],
    "a copy": lambda m, x: loss(copy.deepcopy(m), x),
    "gradients averaged": ddp_like,
    "trained": trained,
    "an average of a parametrized one": averaged,
    "a state carried, create_graph": carried,
    "hooks on both results": clamped,
    "vmap over gradients, h_0": lambda m, x: vmap(
        torch.func.grad(
            lambda x: loss(m.eval(), x[None] if m.batch_first else x[:, None], x.new_zeros(states(m)[0], 1, H))
        ),
        0 if m.batch_first else 1,
    )(x.detach()),
    "default device": in_meta,
    "saved": lambda m, x: loss(saved(m), x),
    "saved, weights_only": lambda m, x: loss(saved(m, nn.RNN), x),
    "saved in a model": lambda m, x: loss(saved(nn.ModuleList([m]), nn.RNN, nn.ModuleList)[0], x),
    "type of what is saved": lambda m, x: str(type(saved(m))),
    "pickled": lambda m, x: (pickle.dumps(m).count(b"elman"), loss(pickle.loads(pickle.dumps(m)), x))[1],
    "state_dict": lambda m, x: dict(m.state_dict()),
    "load_state_dict": lambda m, x: str(m.load_state_dict({k: 0 * v for k, v in m.state_dict().items()})),
    "load_state_dict, wrong": lambda m, x: m.load_state_dict({}),
    "repr": lambda m, x: repr(m),
    "attributes": lambda m, x: {
        k: v for k, v in vars(m).items() if k != "_flat_weight_refs" and not isinstance(v, dict)
    },
    "all_weights": lambda m, x: m.all_weights,
    "flatten_parameters": lambda m, x: m.flatten_parameters(),
    "reset_parameters": lambda m, x: (torch.manual_seed(3), m.reset_parameters(), loss(m, x))[2],
    "named_modules": lambda m, x: [(name, str(p.shape)) for name, p in m.named_parameters()],
    "number of arguments": lambda m, x: m(x, None, None),
    "by keyword": lambda m, x: m(input=x, hx=None),
    "half and back": lambda m, x: loss(m.half().double(), x),
    "moved to meta": lambda m, x: m.to("meta").weight_hh_l0.device.type,
    "to_empty": lambda m, x: [p.shape for p in m.to_empty(device="cpu").parameters()],
    "extra attribute": lambda m, x: (setattr(m, "mine", 3), copy.deepcopy(m).mine)[1],
    "fx": lambda m, x: graph(m),
    "jit.trace": lambda m, x: torch.jit.trace(m.eval(), (x.detach(),))(2 * x.detach()),
    "share_memory": lambda m, x: m.share_memory().weight_hh_l0.is_shared(),
    "zero_grad": lambda m, x: (loss(m, x).backward(), m.zero_grad(), [p.grad for p in m.parameters()])[2],
    "strides": lambda m, x: [one.stride() for one in (*m(x), m(packed(x, m))[0].data)],
    "requires_grad": lambda m, x: [one.requires_grad for one in (*m(x), *m(x.detach()))],
    "is_leaf": lambda m, x: [one.is_leaf for one in m(x)],
}

LAYERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "2 layers, both ways, dropout, batch_first": {
        "num_layers": 2, "bidirectional": True, "dropout": 0.5, "batch_first": True,
    },
    "relu, no bias": {"nonlinearity": "relu", "bias": False},
}  # fmt: skip

# Of all layers or of one, and why it is so. `isinstance` with torch.nn.RNN and torch.jit.script differ as well
# (docs/drop-in/torch.md).
KNOWN: dict[str | tuple[str, str], str] = {
    "float16": "the kernels compute in float32 and float64: an error says so",
    "number of arguments": "a third one is what `resets` are, and may be None",
    "autocast": "the layer computes in the dtype of its weights, which is more exact",
    ("input changed", "2 layers, both ways, dropout, batch_first"): "PyTorch copies it at times, here it is an error",
}


# Where PyTorch's own layer raises an error: elsewhere that would be a mistake in this list
ERRORS = {
    *("no steps", "no rows", "2 inputs where there are 3", "another dtype", "h_0 of another shape", "4 axes", "a list"),
    *("view after it", "twice backward", "input changed", "weight_ih changed", "weight_hh changed", "bias changed"),
    *("vmap", "per-sample gradients", "weights tied", "load_state_dict, wrong", "number of arguments"),
}


def states(m: Layer) -> tuple[int, int, int]:
    return m.num_layers * (1 + m.bidirectional), B, H


def outcome(use: Callable[[Layer, torch.Tensor], Any], module: Layer) -> list[Any]:
    """What it gives, gradients of a loss, or its error, and warnings."""
    torch.manual_seed(1)
    x = torch.randn(*((B, T, I) if module.batch_first else (T, B, I)), dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            result = use(module, x)
            if isinstance(result, torch.Tensor) and result.dim() == 0 and result.requires_grad:
                result.backward()
            values = [result, x.grad, *(p.grad for p in module.parameters())]
        except Exception as error:
            values = [type(error)]
    return [*values, sorted({str(warning.category.__name__) for warning in found})]


def flat(value: Any) -> list[Any]:
    if isinstance(value, PackedSequence):
        value = [type(value).__name__, *value]
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        return list(itertools.chain.from_iterable(map(flat, value)))
    return [value]


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    is_alike = all(getattr(one, name) == getattr(other, name) for name in ("shape", "dtype", "device", "requires_grad"))
    return is_alike and (one.is_meta or torch.allclose(one, other, rtol=1e-9, atol=1e-11, equal_nan=True))


def difference(name: str, options: dict[str, Any]) -> str | None:
    """Of what a use sees before and after, if there is one."""
    torch.manual_seed(0)
    plain = nn.RNN(I, H, **options, dtype=torch.float64)
    plain, accelerated = copy.deepcopy(plain), copy.deepcopy(plain)
    assert elman.torch.accelerate(accelerated).replaced
    outcome(USES[name], copy.deepcopy(plain))  # PyTorch warns of some things once
    expected, found = (flat(outcome(USES[name], module)) for module in (plain, accelerated))
    if isinstance(expected[0], type) and name not in ERRORS:
        return f"a torch.nn.RNN raises {expected[0]}: a mistake in this list"
    if len(expected) != len(found):
        return f"{expected} became {found}"
    for one, other in zip(expected, found, strict=True):
        if type(one) is not type(other) or not same(one, other):
            return f"{one} became {other}"
    return None


def reason(name: str, layer: str) -> str | None:
    return KNOWN.get(name) or KNOWN.get((name, layer))


def main(parts: list[str]) -> int:
    n_found = 0
    for name, layer in itertools.product(USES, LAYERS):
        if parts and not any(part in name for part in parts):
            continue
        found, why = difference(name, LAYERS[layer]), reason(name, layer)
        if found is not None:
            n_found += why is None
            print(f"{name} ({layer}): {why or found}")
    print(f"{len(USES)} uses, {n_found} differences besides {len(KNOWN)} that are known")
    return n_found


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
