"""torch.nn.RNN as an oracle: outputs, states and every gradient of random configurations."""

from typing import Any

import numpy as np
import pytest

import elman

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this file: pip install torch")

TOLERANCE = {"float64": 1e-9, "float32": 2e-4}  # of the largest entry


class Case:
    """Configuration i: a layer of elman's and PyTorch's with the same weights, input, and gradients to pull back."""

    def __init__(self, i: int, backend: str) -> None:
        rng = np.random.default_rng(i)
        self.form = ("plain", "padded", "list", "batch_first", "unbatched")[i % 5]
        self.dtype = ("float32", "float64")[i // 5 % 2]
        n_steps, n_rows, n_inputs, n_units = rng.integers(1, (30, 9, 40, 40)).tolist()
        n_rows = 1 if self.form == "unbatched" else n_rows
        options = {
            "num_layers": int(rng.integers(1, 4)),
            "nonlinearity": str(rng.choice(["tanh", "relu"])),
            "bias": bool(rng.integers(2)),
            "bidirectional": bool(rng.integers(2)),
            "batch_first": self.form == "batch_first",
        }
        self.elman = elman.RNN(n_inputs, n_units, **options, dtype=self.dtype, backend=backend)
        torch.manual_seed(i)
        self.torch = torch.nn.RNN(n_inputs, n_units, **options, dtype=getattr(torch, self.dtype))
        self.elman.load_state_dict(self.torch.state_dict())

        n_directions = 2 if options["bidirectional"] else 1
        has_lengths = self.form in ("padded", "list")
        self.lengths = rng.integers(1, n_steps + 1, n_rows) if has_lengths else np.full(n_rows, n_steps)
        if has_lengths:
            self.lengths[rng.integers(n_rows)] = n_steps
        self.beyond = np.arange(n_steps)[:, None] >= self.lengths

        def random(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(self.dtype)

        self.x = random(n_steps, n_rows, n_inputs)
        self.d_y = random(n_steps, n_rows, n_directions * n_units)
        self.h_0, self.d_h_n = random(2, options["num_layers"] * n_directions, n_rows, n_units)

    def by_elman(self) -> dict[str, np.ndarray]:
        x, d_y = self.shown(self.x), self.shown(self.d_y)
        h_0, d_h_n = (h[:, 0] if self.form == "unbatched" else h for h in (self.h_0, self.d_h_n))
        lengths = self.lengths if self.form == "padded" else None
        called_y, called_h_n = self.elman(x, h_0, lengths)
        y, h_n, pullback = self.elman.vjp(x, h_0, lengths)
        d_x, d_h_0, d_params = pullback(d_y, d_h_n)
        last = self.elman.last_state(x, h_0, lengths)
        for one, other in [(called_y, y), ([called_h_n, last], [h_n, h_n])]:
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        assert d_h_0.shape == h_n.shape == h_0.shape
        found = {"y": self.time_major(y), "h_n": h_n, "d_x": self.time_major(d_x), "d_h_0": d_h_0, **d_params}
        shape = self.h_0.shape
        return {name: array.reshape(shape) if name in ("h_n", "d_h_0") else array for name, array in found.items()}

    def by_torch(self) -> dict[str, np.ndarray]:
        x, h_0 = (torch.tensor(array, requires_grad=True) for array in (self.x, self.h_0))
        padded = x.swapaxes(0, 1) if self.torch.batch_first else x
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            padded, torch.tensor(self.lengths), enforce_sorted=False, batch_first=self.torch.batch_first
        )
        y, h_n = self.torch(packed, h_0)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(self.x))
        ((y * torch.tensor(self.d_y)).sum() + (h_n * torch.tensor(self.d_h_n)).sum()).backward()
        gradients = {name: p.grad for name, p in self.torch.named_parameters() if not name.startswith("bias_hh")}
        found = {"y": y, "h_n": h_n, "d_x": x.grad, "d_h_0": h_0.grad}
        found |= {name.replace("bias_ih", "bias"): gradient for name, gradient in gradients.items()}
        return {name: tensor.detach().numpy() for name, tensor in found.items()}

    def shown(self, array: np.ndarray) -> Any:
        """A (T, B, ·) in the configuration's form; what is beyond the lengths must not matter."""
        match self.form:
            case "list":
                return [array[:n, b] for b, n in enumerate(self.lengths)]
            case "padded":
                return np.where(self.beyond[..., None], np.array(np.nan, array.dtype), array)
            case "batch_first":
                return array.swapaxes(0, 1)
            case "unbatched":
                return array[:, 0]
        return array

    def time_major(self, shown: Any) -> np.ndarray:
        """The inverse, with zeros beyond the lengths of a list."""
        match self.form:
            case "list":
                array = np.zeros((*self.beyond.shape, shown[0].shape[-1]), shown[0].dtype)
                for b, item in enumerate(shown):
                    array[: len(item), b] = item
                return array
            case "batch_first":
                return shown.swapaxes(0, 1)
            case "unbatched":
                return shown[:, None]
        return shown


@pytest.mark.parametrize("i", range(40))
def test_random_configuration(i: int, everywhere: str):
    case = Case(i, backend=everywhere)
    expected, found = case.by_torch(), case.by_elman()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == case.dtype
        assert found[name].shape == array.shape, name
        assert np.abs(found[name] - array).max() <= TOLERANCE[case.dtype] * np.abs(array).max(), name


def test_state_dict_for_pytorch():
    layer = elman.RNN(3, 5, num_layers=2, bidirectional=True, seed=0, backend="numpy")
    peer = torch.nn.RNN(3, 5, num_layers=2, bidirectional=True)
    peer.load_state_dict({name: torch.from_numpy(array) for name, array in layer.state_dict(pytorch=True).items()})
    x = np.random.default_rng(0).standard_normal((7, 4, 3), dtype=np.float32)
    np.testing.assert_allclose(layer(x)[0], peer(torch.from_numpy(x))[0].detach().numpy(), atol=1e-6)


def test_tensors_are_arrays():
    layer = elman.RNN(3, 5, seed=0, backend="numpy")
    x = torch.ones(7, 4, 3)
    assert np.array_equal(layer(x, lengths=torch.tensor([7, 1, 0, 3]))[0], layer(x.numpy(), lengths=[7, 1, 0, 3])[0])
    assert [y.shape for y in layer([x[:, 0], x[:2, 1]])[0]] == [(7, 5), (2, 5)]
    with pytest.raises(TypeError, match="x must be an array"):
        layer(x.requires_grad_())
