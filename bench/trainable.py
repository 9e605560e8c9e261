"""What is frozen costs no gradient: training steps of some parameters, beside one of all and the loss alone."""

import statistics
import time

import numpy as np

import elman

CHOICES = {"all": None, "readout": ["weight_ho", "bias_o"], "top layer": ["*_l1", "*_?o"], "weight_hh": ["weight_hh_*"]}
ROUNDS = 30


def main() -> None:
    rng = np.random.default_rng(0)
    for n_steps, n_rows, n_inputs, n_units, n_outputs in ((100, 32, 32, 128, 65), (100, 64, 64, 256, 65)):
        inputs, outputs = elman.Features(n_inputs), elman.Categories(n_outputs)
        model, optimizer = elman.SequenceModel(inputs, outputs, hidden_size=n_units, num_layers=2), elman.SGD(1e-4)
        x = rng.standard_normal((n_steps, n_rows, n_inputs)).astype(np.float32)
        y, times = rng.integers(0, n_outputs, (n_steps, n_rows)), dict[str, list[float]]()
        for _ in range(ROUNDS):
            for name, trainable in {"the loss alone": [], **CHOICES}.items():
                start = time.perf_counter()
                if trainable == []:
                    model.loss(x, y)
                else:
                    model.train_step(x, y, optimizer=optimizer, trainable=trainable)
                times.setdefault(name, []).append(time.perf_counter() - start)
        found = ", ".join(f"{name} {1e3 * statistics.median(each):.1f} ms" for name, each in times.items())
        print(f"{n_steps},{n_rows},{n_inputs},{n_units},{n_outputs}, two layers: {found}")


if __name__ == "__main__":
    main()
