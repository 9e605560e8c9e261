"""The sizes of layers: what fixes the entries of their buffer of parameters and the shapes of their states."""

from __future__ import annotations

from dataclasses import dataclass, field

from elman import check
from elman.layer.parameters import Entry


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of layers above one another, in one direction or both.

    Nothing is allocated for it, so what a file says of its model is looked at here before it is believed.
    """

    input_size: int  # I
    hidden_size: int  # H
    num_layers: int = 1  # L
    bidirectional: bool = False
    bias: bool = True
    learn_leak: bool = False
    reverse: bool = False
    n_directions: int = field(init=False, repr=False)  # D
    n_outputs: int = field(init=False, repr=False)  # D·H, the units that the next layer sees, or a readout
    n_states: int = field(init=False, repr=False)  # L·D, how many states (H,) a row has

    def __post_init__(self) -> None:
        n_directions = 2 if self.bidirectional else 1  # once, as each call asks for all of these
        object.__setattr__(self, "n_directions", n_directions)
        object.__setattr__(self, "n_outputs", n_directions * self.hidden_size)
        object.__setattr__(self, "n_states", n_directions * self.num_layers)

    @property
    def runs_back(self) -> str | None:
        """The argument because of which some direction begins at the last step, if there is one."""
        return "bidirectional=True" if self.bidirectional else "reverse=True" if self.reverse else None

    @property
    def n_entries(self) -> int:
        """How many arrays the buffer of parameters has for all layers."""
        return self.num_layers * (2 + self.bias + self.learn_leak)

    @property
    def n_parameters(self) -> int:
        """Of all layers."""
        first, upper = (n + self.hidden_size + self.bias + self.learn_leak for n in (self.input_size, self.n_outputs))
        return self.n_outputs * (first + (self.num_layers - 1) * upper)

    def state_shape(self, n_rows: int) -> tuple[int, int, int]:
        """(L·D, B, H)."""
        return self.n_states, n_rows, self.hidden_size

    def layer_inputs(self) -> list[int]:
        """How many inputs each layer has: I, then D·H."""
        return [self.input_size, *[self.n_outputs] * (self.num_layers - 1)]

    def entries(self, owner: str = "") -> list[Entry]:
        """The arrays in the order of the buffer; `owner` comes before their names."""
        entries, units = [], (self.hidden_size,)
        for k, n_inputs in enumerate(self.layer_inputs()):
            suffixes = (f"_l{k}", f"_l{k}_reverse")[: self.n_directions]
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (*units, n_inputs), "weight_hh": (*units, *units)}
            shapes |= ({"bias": units} if self.bias else {}) | ({"leak": units} if self.learn_leak else {})
            for kind, shape in shapes.items():
                entries.append(Entry(tuple(f"{owner}{kind}{suffix}" for suffix in suffixes), shape))
        return entries

    def initial_entries(self, *, is_learned: bool) -> list[Entry]:
        """What a model's buffer has of the states before the first step, behind its layers."""
        return [Entry(("h_0",), (self.n_states, self.hidden_size))] if is_learned else []

    def check_addressable(self) -> None:
        """Refuse what memory has no addresses for, before there is an array for each layer."""
        n_inputs = max(self.input_size, self.n_outputs if self.num_layers > 1 else 0)
        n = self.num_layers * self.n_outputs * (n_inputs + self.hidden_size + 1)
        sizes = {"input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers}
        check.addressable(8 * n, **sizes)
