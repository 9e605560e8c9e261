"""What is exact, and whether a contestant's results are right."""

import dataclasses
import functools

import numpy as np

from elman.benchmark.contestants import own
from elman.benchmark.workloads import Arrays, Case


class Truth:
    """The results of a case in float64, by the NumPy reference.

    Examples
    --------
    >>> from elman.benchmark.workloads import Shape, Workload
    >>> case = Case.of(Workload(Shape(7, 5, 3, 11)))
    >>> program = own.backend("numpy").prepare(case, 1)
    >>> Truth(case).complaint(program.results(program.run())) is None
    True
    """

    def __init__(self, case: Case) -> None:
        self.case, self.work = case, case.work

    @functools.cached_property
    def exact(self) -> Arrays:
        dtype = self.work.dtype if self.work.dropout else "float64"  # other masks are drawn in another dtype
        case = dataclasses.replace(self.case, work=dataclasses.replace(self.work, models=1))
        program = own.program(case, "numpy", dtype)
        return program.results(program.run())

    @property
    def tolerance(self) -> float:
        """How far a right array may be from the exact one, relative to its Euclidean norm.

        Errors of n roundings add up like √n; initial weights damp them from step to step, so that T counts only in sums
        over time. Where a relu or retanh is within rounding of its kink, one term of the gradients changes altogether:
        some in a million, which is less than 1 % of the norm even for small shapes. Losses of rate units are means, in
        which roundings cancel (3e-7 at most in the set "rates"), and show a wrong leak in their sixth digit.
        """
        n_steps, n_rows, n_inputs, n_units = self.work.shape
        n_terms = 1 if self.work.what == "train-rates" else n_steps * n_rows + n_inputs + n_units
        roundings = float(16 * np.finfo(self.work.dtype).eps * n_terms**0.5)
        has_kink = self.work.nonlinearity in ("relu", "retanh")
        return roundings + (0.01 if has_kink and self.work.has_gradients else 0)

    def complaint(self, results: Arrays) -> str | None:
        """What is wrong with a contestant's results, or None.

        Raises
        ------
        KeyError
            If there is a result of no such name.
        """
        for name, got in results.items():
            exact, got = self.exact[name], np.asarray(got)
            if got.shape != exact.shape:
                return f"{name} has shape {got.shape} instead of {exact.shape}"
            error, limit = np.linalg.norm(got - exact), self.tolerance * np.linalg.norm(exact)
            if not error <= limit:  # NaN is wrong, too
                return f"{name} is off by {error:.1e}, more than {limit:.1e}, {self.tolerance:.1e} of its norm"
        return None

    def deviations(self, results: Arrays) -> dict[str, float]:
        """The largest error of each result, relative to the largest entry of the exact one."""
        return {
            name: float(np.abs(got - self.exact[name]).max() / (np.abs(self.exact[name]).max() or 1))
            for name, got in results.items()
        }
