"""`elman bench`: what is measured, and that wrong results are found. No test looks at how long anything takes."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import elman
from elman.backends import native, reference
from elman.backends.reference import ACTIVATIONS
from elman.benchmark import contestants
from elman.benchmark.accuracy import count_float32, worst_float32, worst_float64
from elman.benchmark.compare import Change
from elman.benchmark.contestants.own import backend
from elman.benchmark.machine import Machine
from elman.benchmark.measure import Measurement, measure, yardstick_rounds
from elman.benchmark.program import Contestant, Program, Unsupported
from elman.benchmark.report import as_json, remarks, table
from elman.benchmark.truth import Truth
from elman.benchmark.workloads import SETS, WHAT, Case, Shape, Workload
from elman.cli import benchmark as command
from elman.cli import main

SHAPE = Shape(7, 5, 3, 11)
VERSIONS = {"python": "3", "elman": "1", "numpy": "2"}
MACHINE = Machine("a cpu", 2, "avx2", 2, "2", VERSIONS, 100.0, 80.0, {1 << 20: 50.0})


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command sets."""
    before = elman.get_num_threads()
    for name in contestants.environment(1):
        monkeypatch.setenv(name, "")  # so that monkeypatch knows what to restore
        monkeypatch.delenv(name)
    yield
    elman.set_num_threads(before)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)], prog_name="elman")


def run(work: Workload, *those: Contestant) -> Measurement:
    """A measurement on a machine that is as good as quiet."""
    return dataclasses.replace(measure(work, those, n_threads=1, budget=0), others=0.0)


# Workloads


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,0", "1,2,3,-4", "1,2,3,x", "1 2 3 4", "1,2,3,4.0"])
def test_a_shape_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="shape must be four positive ints T,B,I,H, got"):
        Shape.parse(text)


def test_flops_of_layers_and_directions() -> None:
    t, b, i, h = SHAPE
    one = Workload(SHAPE)
    assert Workload(SHAPE, "both-dx").flops == one.flops + 2 * t * b * h * i
    assert Workload(SHAPE, bidirectional=True).flops == 2 * one.flops
    assert Workload(SHAPE, num_layers=2).flops == one.flops + 2 * t * b * h * 6 * h
    assert Workload(SHAPE, "train").flops == 2 * t * b * (3 * h * h + 3 * h * i)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"dtype": "float64"},
        {"leak": 0.3, "noise": 0.1, "n_labels": 2},
    ],
    ids=str,
)
def test_backends_are_right(what: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    if what in ("step", "stream", "generate"):
        options = {**options, "bidirectional": False}
    for name in ("N_BATCHES", "N_EPOCHS"):
        monkeypatch.setattr(f"elman.benchmark.workloads.{name}", 2)
    work = Workload(SHAPE, what, **options)
    for result in run(work, *map(backend, elman.available_backends())).results.values():
        assert result.problem is None
        assert len(result.times) >= 3


# Peers


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        *({"nonlinearity": f} for f in ACTIVATIONS if f != "tanh"),
        {"dtype": "float64"},
        {"leak": 0.3, "n_labels": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", contestants.PEERS)
def test_peers_are_right(name: str, what: str, options: dict) -> None:
    if name in contestants.missing():
        pytest.skip(f"{name} is not installed: {contestants.missing()[name]}")
    case = Case.of(Workload(Shape(7, 1, 3, 11), what, **options))
    try:
        program = contestants.peer(name).prepare(case, 1)
    except Unsupported:
        return
    assert Truth(case).complaint(program.results(program.run())) is None


def test_every_peer_computes_something() -> None:
    """That `test_peers_are_right` is not satisfied by excuses: each says what it can do at all."""
    own = [("jax", "both", nonlinearity) for nonlinearity in ACTIVATIONS]
    own += [("keras", "both", "softplus"), ("onnxruntime", "forward", "softplus")]
    own += [(name, what, "tanh") for name in ("torch", "elman.torch", "jax") for what in ("both", "train-rates")]
    own += [("elman.keras", "both", "softplus")] * (os.environ.get("KERAS_BACKEND") == "torch")
    for name, what, nonlinearity in [("torch", "train", "tanh"), ("numpy-script", "train-sgd", "tanh"), *own]:
        if name not in contestants.missing():
            work = Workload(Shape(7, 1, 3, 11), what, nonlinearity=nonlinearity)
            assert contestants.peer(name).prepare(Case.of(work), 1)


# Wrong contestants


def _spoilt(change: object) -> Contestant:
    """The NumPy backend, but for a change to its results."""

    def prepare(case: Case, n_threads: int) -> Program:
        program = backend("numpy").prepare(case, n_threads)
        return program._replace(results=lambda found: change(program.results(found)))  # type: ignore[operator]

    return Contestant("spoilt", (), prepare)


SPOILERS = {
    "one unit": lambda found: {**found, "y": np.where(np.arange(11) == 3, found["y"] + 0.01, found["y"])},
    "NaN": lambda found: {**found, "h_n": found["h_n"] * np.nan},
    "sign": lambda found: {**found, "weight_hh_l0": -found["weight_hh_l0"]},
    "transposed": lambda found: {**found, "weight_hh_l0": found["weight_hh_l0"].T},
    "shape": lambda found: {**found, "bias_l0": found["bias_l0"][None]},
}


@pytest.mark.parametrize("change", SPOILERS.values(), ids=SPOILERS)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_wrong_contestant_is_not_timed(change: object, nonlinearity: str) -> None:
    measurement = run(Workload(SHAPE, nonlinearity=nonlinearity), backend("numpy"), _spoilt(change))
    right, wrong = measurement.results.values()
    assert right.times
    assert (wrong.times, wrong.is_wrong) == ((), True)
    (remark,) = remarks([measurement])
    assert remark.startswith("WRONG: spoilt at 7,5,3,11: ")
    assert "WRONG" in table([measurement], MACHINE, ["spoilt"])


def test_a_wrong_training_step_is_found() -> None:
    measurement = run(Workload(SHAPE, "train"), _spoilt(lambda found: {"losses": found["losses"][[0, 0, 0]]}))
    assert measurement.results["spoilt"].is_wrong


RATES = Workload(SHAPE, "train-rates", leak=0.2, noise=0.1, n_labels=4)
OTHER_RATES = {
    "leak": lambda case: dataclasses.replace(case, work=dataclasses.replace(case.work, leak=0.21)),
    "readout": lambda case: _with_parameter(case, "weight_ho", lambda array: np.roll(array, 1, axis=0)),
    "inputs": lambda case: _with_parameter(case, "weight_ih_l0", np.negative),
    "recurrence": lambda case: _with_parameter(case, "weight_hh_l0", np.transpose),
}


def _with_parameter(case: Case, name: str, change: Callable) -> Case:
    return dataclasses.replace(case, parameters={**case.parameters, name: change(case.parameters[name])})


@pytest.mark.parametrize("change", OTHER_RATES.values(), ids=OTHER_RATES)
@pytest.mark.parametrize("name", ["cython", "torch", "jax"])
def test_other_rate_units_are_found(name: str, change: Callable) -> None:
    if name in contestants.missing():
        pytest.skip(f"{name} is not installed: {contestants.missing()[name]}")
    right = contestants.peer(name) if name in contestants.PEERS else backend(name)
    wrong = Contestant("wrong", (), lambda case, n_threads: right.prepare(change(case), n_threads))
    results = run(RATES, right, wrong).results
    assert (results[name].problem, results[name].is_wrong) == (None, False)
    assert results["wrong"].is_wrong
    assert str(results["wrong"].problem).startswith("losses is off")


def test_what_a_contestant_cannot_do_is_said_once() -> None:
    measurements = [run(Workload(shape), contestants.peer("numpy-script")) for shape in (SHAPE, Shape(2, 1, 3, 4))]
    (remark,) = remarks(measurements)
    assert remark.startswith("numpy-script left out: ")


def test_a_machine_that_is_not_quiet_is_mentioned() -> None:
    measurement = run(Workload(SHAPE), backend("numpy"))
    assert remarks([measurement, dataclasses.replace(measurement, others=None)]) == []
    (remark,) = remarks([dataclasses.replace(measurement, others=0.8)])
    assert remark.startswith("NOT QUIET: 0.8 cores were busy with other programs during 7,5,3,11. ")


def test_the_peak_counts_the_operations_of_all_threads(threads: Callable[[int], None]) -> None:
    native = elman.backends.get("cython")
    for n_threads in (1, 3):
        threads(n_threads)
        single, double = (native.multiply_adds(7, dtype) for dtype in ("float32", "float64"))
        assert single == 2 * double
        under_way = single / (2 * 7 * native.plan(1, 1, 1, 1)["vector_reals"] * n_threads)
        assert under_way in (12, 28)  # registers, but 4
    with pytest.raises(ValueError, match="rounds >= 1"):
        native.multiply_adds(0)
    with pytest.raises(ValueError, match="float32 or float64"):
        native.multiply_adds(1, "float16")


def test_roofline() -> None:
    assert MACHINE.roofline(Workload(Shape(7, 64, 3, 11))) == Workload(Shape(7, 64, 3, 11)).flops / 100e9
    assert MACHINE.roofline(Workload(Shape(7, 1, 3, 11))) == 2 * 7 * 11 * 11 * 4 / 50e9  # weight_hh, twice per step


# The command


SMALL = ["--shape", "7,5,3,11", "--budget", "0", "--backend", "numpy", "--backend", "cython", "--quiet"]


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is not measured, which takes a second."""
    monkeypatch.setattr("elman.benchmark.machine._N", 64)
    monkeypatch.setattr("elman.benchmark.machine._BYTES_PER_SAMPLE", 1 << 14)


def test_command_end_to_end(tmp_path: Path) -> None:
    files = ["--json", tmp_path / "all.json", "--plot", tmp_path / "all.png"]
    result = invoke(*SMALL, "--shape", "3,1,4,6", "--peer", "numpy-script", "--what", "train-sgd", *files)
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    assert rows[0] == ["T,B,I,H", "backend", "ms (quartiles)", "over numpy-script", "GFLOP/s", "of roofline"]
    assert [row[:2] for row in rows[2:]] == [[s, b] for s in ("7,5,3,11", "3,1,4,6") for b in ("numpy", "cython")]
    assert rows[2][3] == "-"  # B > 1
    assert rows[4][3].endswith("×")
    assert "- numpy-script left out: " in result.stdout
    assert (tmp_path / "all.png").read_bytes()[1:4] == b"PNG"
    assert_schema(json.loads((tmp_path / "all.json").read_text()))


def test_where_one_size_varies_the_plot_is_over_that_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
    for n_rows in (2, 3):  # the second time B varies, too
        shapes = ["7,2,3,9", "7,2,3,5", f"7,{n_rows},3,7"]
        options = [part for shape in shapes for part in ("--shape", shape)]
        result = invoke(
            *options, "--backend", "cython", "--peer", "none", "--budget", "0", "--plot", tmp_path / "a.png"
        )
        assert result.exit_code == 0, result.output
    over_units, general = figures
    (axes,) = over_units.axes
    assert axes.get_xlabel() == "hidden units H   (T = 7, B = 2, I = 3)"
    (line,) = axes.lines
    assert line.get_label() == "elman (cython)"
    assert line.get_xdata().tolist() == [5, 7, 9]
    assert len(general.axes) == 2


def assert_schema(found: dict) -> None:
    assert found["machine"].keys() == Machine.__dataclass_fields__.keys()
    assert found["machine"]["versions"].keys() >= {"python", "elman", "numpy"}
    for measurement in found["measurements"]:
        assert measurement.keys() == {*Workload.__dataclass_fields__, "flops", "others", "yardstick", "results"}
        assert len(measurement["shape"]) == 4
        for result in measurement["results"]:
            fixed = {"contestant", "times", "problem", "is_wrong"}
            assert result.keys() == (fixed | {"median", "gflops", "share"} if result["times"] else fixed)


def test_json_of_a_wrong_result_can_be_written() -> None:
    found = as_json([run(Workload(SHAPE), _spoilt(SPOILERS["NaN"]))], MACHINE)
    assert_schema(json.loads(json.dumps(found, allow_nan=False)))


def test_a_wrong_result_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants, "peer", lambda name: _spoilt(SPOILERS["sign"])._replace(name=name))
    result = invoke(*SMALL, "--peer", "numpy-script")
    assert result.exit_code == 1
    assert "- WRONG: numpy-script at 7,5,3,11: weight_hh_l0 is off" in result.stdout


def test_missing_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out with a note, but an error where one was asked for, before anything is measured."""
    absent = {name: f"pip install {name}" for name in contestants.PEERS if name != "numpy-script"}
    monkeypatch.setattr(contestants, "missing", lambda: absent)
    result = invoke(*SMALL)
    assert result.exit_code == 0, result.output
    assert "- jax is not installed: pip install jax\n" in result.stdout
    assert "not installed" not in invoke(*SMALL, "--peer", "numpy-script").stdout  # nobody asked
    monkeypatch.setattr(Machine, "measured", None)
    result = invoke(*SMALL, "--peer", "numpy-script", "--peer", "jax", "--peer", "keras")
    assert (result.exit_code, result.stdout) == (2, "")
    missed = "--peer jax is not installed: pip install jax; --peer keras is not installed: pip install keras"
    assert result.stderr == f"Error: {missed}\n"


def test_options_change_a_set() -> None:
    works = command._workloads("quick", (SHAPE,), {"what": "forward", "dtype": "float64"}, [])
    assert {(work.what, work.dtype) for work in works} == {("forward", "float64")}
    assert [work.shape for work in works] == [work.shape for work in SETS["quick"]] + [SHAPE]
    assert command._workloads(None, (), {}, SETS["quick"]) == SETS["quick"]


def test_progress_is_on_standard_error() -> None:
    result = invoke(*SMALL[:-1], "--peer", "none")
    assert result.stderr.startswith("1/1")
    assert "%|" not in result.stdout


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke(*SMALL, "--plot", tmp_path / "all.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--plot needs matplotlib: pip install 'elman[plot]'" in result.stderr


ERRORS = {
    "--shape 1,2,3": "'--shape': shape must be four positive ints T,B,I,H, got '1,2,3'",
    "--set none": "'--set'",
    "--what nothing": "'--what'",
    "--threads 0": "'--threads'",
    "--budget nan": "'--budget'",
    "--budget -1": "'--budget'",
    "--backend fortran": "'--backend'",
    "--peer fortran": "'--peer'",
    "--peer none --peer torch": "--peer none goes with no other --peer, got none, torch",
    "--json {}/none/all.json": "none/all.json: No such file or directory",
    "--plot {}/none/all.png": "none/all.png: No such file or directory",
    "--json {}": "'--json'",
    "--compare {}": "'--compare'",
    "--compare {}/none.json": "none.json: No such file or directory",
    "--models 0": "'--models'",
    "--layers 0": "'--layers'",
    "--nonlinearity softmax": "'--nonlinearity'",
    "--dtype float16": "'--dtype'",
    "nonsense": "nonsense",
}


@pytest.mark.parametrize("options", ERRORS)
def test_errors(options: str, tmp_path: Path) -> None:
    result = invoke(*options.replace("{}", str(tmp_path)).split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert ERRORS[options] in result.stderr


def test_a_gradient_that_is_zero_is_right() -> None:
    case = Case.of(Workload(Shape(1, 1, 4, 3)))  # no state before the only step: no gradient of weight_hh
    program = backend("numpy").prepare(case, 1)
    results = program.results(program.run())
    truth = Truth(case)
    assert truth.complaint(results) is None
    assert truth.deviations(results)["weight_hh_l0"] == 0
    results["weight_hh_l0"][0, 0] = 1e-3
    assert str(truth.complaint(results)).startswith("weight_hh_l0 is off")


# Small calls, dropout, many models


def test_sets_hold_what_they_are_called_after() -> None:
    assert [work.what for work in SETS["small"]] == ["both", "forward", "step", "train", "loss", "stream", "generate"]
    assert all(work.is_single for work in SETS["small"] if work.what != "generate")
    assert all((work.num_layers, work.dropout) == (2, 0.2) for work in SETS["dropout"])
    assert [work.what for work in SETS["many"]] == ["fit-many"]
    assert all((work.what, work.leak, work.noise) == ("train-rates", 0.2, 0.1) for work in SETS["rates"])


def test_flops_of_models() -> None:
    t, b, i, h = SHAPE
    assert Workload(SHAPE, "step").flops == Workload(SHAPE, "forward").flops
    assert Workload(SHAPE, "loss").flops == Workload(SHAPE, "generate").flops == 2 * t * b * (h * h + h * i)
    assert Workload(SHAPE, "fit-many", models=3).flops == 3000 * Workload(SHAPE, "train").flops
    assert Workload(SHAPE, "train-rates").flops == Workload(SHAPE, "train").flops + 2 * t * b * 2 * h * i
    assert RATES.flops == 2 * t * b * h * (3 * h + 2 * i + 3 * 4)


def test_dropout_is_timed_beside_none() -> None:
    works = [Workload(SHAPE, "train", num_layers=2, dropout=dropout) for dropout in (0.2, 0.0)]
    dropped, plain = (run(work, *map(backend, elman.available_backends())) for work in works)
    assert all(not result.problem and len(result.times) >= 3 for result in dropped.results.values())
    assert set(dropped.results) - set(plain.results) == {f"{n} without dropout" for n in elman.available_backends()}
    text = table([dropped], MACHINE, elman.available_backends())
    assert ", dropout 0.2" in text
    assert text.count("over without dropout") == 1
    assert "- |" not in text.split("\n", 4)[4]  # each backend beside itself


def test_noise_is_timed_and_not_compared() -> None:
    prepared = []

    def prepare(case: Case, n_threads: int) -> Program:
        prepared.append(case.work)
        return backend("cython").prepare(case, n_threads)

    measurement = run(RATES, Contestant("cython", (), prepare))
    assert prepared == [dataclasses.replace(RATES, noise=0.0), RATES]
    assert list(measurement.results) == ["cython", "cython without noise", "cython without leak and noise"]
    text = table([measurement], MACHINE, ["cython"])
    assert ", leak 0.2, noise 0.1 (none where results are compared)" in text
    assert "| 7,5,3,11,4 | cython  |" in text


def test_many_models_are_timed_beside_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("N_BATCHES", "N_EPOCHS"):
        monkeypatch.setattr(f"elman.benchmark.workloads.{name}", 1)
    work = Workload(SHAPE, "fit-many", models=2)
    measurement = measure(work, [backend("cython")], n_threads=2, budget=0)
    assert list(measurement.results) == ["cython", "cython on one core"]
    assert all(not result.problem and len(result.times) >= 3 for result in measurement.results.values())
    assert elman.get_num_threads() == 2
    assert ", 2 models" in table([measurement], MACHINE, ["cython"])


def test_a_single_step_is_in_microseconds_and_beside_gradients() -> None:
    def peer(name: str) -> Contestant:
        def prepare(case: Case, n_threads: int) -> Program:
            program = backend("numpy").prepare(case, n_threads)
            return program._replace(beside={"gradient": program.run} if case.work.is_single else {})

        return Contestant(name, (), prepare)

    for shape in ("1,1,3,11", "2,1,3,11"):
        text = table([run(Workload(Shape.parse(shape), "step"), backend("numpy"), peer("b"))], MACHINE, ["numpy"])
        assert ("µs" in text, "over b gradient" in text, "roofline" not in text) == (shape == "1,1,3,11",) * 3
        assert "over b " in text


# elman bench --compare


def _noise(rng: np.random.Generator, spread: float, n: int = 20) -> np.ndarray:
    return np.exp(spread * rng.standard_normal(n))


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.5])
def test_noise_is_the_same(spread: float) -> None:
    """Also where the clock is another one, which multiply-adds tell."""
    rng = np.random.default_rng(0)
    for clock in rng.uniform(0.5, 2, 50):
        yardsticks = 1e-6 * np.ones(20), 1e-6 * clock * np.ones(20)
        change = Change.of(_noise(rng, spread), clock * _noise(rng, spread), yardsticks)
        assert change.verdict == "same"
        assert change.limits[0] < 1 < change.limits[1]


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "slower"), (1 / 1.2, "faster"), (1.04, "same"), (0.97, "same")])
def test_a_difference_beyond_noise(factor: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    yardsticks = 1e-6 * _noise(rng, 0.01), 1e-6 * _noise(rng, 0.01)
    change = Change.of(_noise(rng, 0.02), factor * _noise(rng, 0.02), yardsticks)
    assert change.verdict == verdict
    assert change.ratio == pytest.approx(factor, rel=0.02)
    assert Change.of([1.0], [factor], ([1.0], [1.0])).verdict == verdict


def test_a_difference_within_noise_is_none() -> None:
    rng = np.random.default_rng(0)
    assert Change.of(_noise(rng, 0.2), 1.2 * _noise(rng, 0.2), (np.ones(20), np.ones(20))).verdict == "same"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that the command has written."""
    path = tmp_path / "old.json"
    assert invoke(*SMALL, "--what", "step", "--peer", "none", "--json", path).exit_code == 0
    return path


def _rewrite(path: Path, change: Callable[[dict], object]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def _scale(path: Path, factor: float) -> None:
    """Make all old times so many times what they are: no noise is like that."""

    def change(found: dict) -> None:
        for result in found["measurements"][0]["results"]:
            result["times"] = [factor * time for time in result["times"]]

    _rewrite(path, change)


@pytest.mark.parametrize(("factor", "verdict"), [(1e-3, "slower"), (1e3, "faster")])
def test_compare(old: Path, factor: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _scale(old, factor)
    measured = []
    monkeypatch.setattr("elman.benchmark.measure.Case.of", lambda work: measured.append(work) or Case(work, *CASE))
    result = invoke("--compare", old, "--quiet")
    assert result.exit_code == (verdict == "slower"), result.output
    assert [str(work.shape) for work in measured] == ["7,5,3,11"] * (1 + (verdict == "slower"))  # once more, to be sure
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    assert ["7,5,3,11 step", "numpy", verdict] in [[*row[:2], row[-1]] for row in rows]
    assert sum(row[0] == "7,5,3,11 step" for row in rows) == 2
    assert "**Beside old.json**, of elman " in result.stdout


CASE = dataclasses.astuple(Case.of(Workload(SHAPE, "step")))[1:]


def test_compare_with_a_file_from_before_there_were_leaks(old: Path) -> None:
    _rewrite(old, lambda found: [found["measurements"][0].pop(name) for name in ("leak", "noise", "n_labels")])
    assert "| 7,5,3,11 step | numpy " in invoke("--compare", old, "--quiet").stdout


def test_compare_with_another_machine(old: Path) -> None:
    _scale(old, 1e-3)
    _rewrite(old, lambda found: found["machine"].update(cpu="a cpu"))
    result = invoke("--compare", old, "--quiet")
    assert result.exit_code == 0, result.output
    assert "ANOTHER MACHINE: a cpu, " in result.stdout
    assert "slower |" not in result.stdout


def test_options_go_before_what_the_file_says(old: Path) -> None:
    result = invoke("--compare", old, "--backend", "cython", "--shape", "3,1,4,6", *SMALL[:2], "--what", "step")
    assert result.exit_code in (0, 1), result.output
    compared = result.stdout.partition("**Beside")[2]
    assert compared.count("| 7,5,3,11 step | cython ") == compared.count(" step ") == 1


def test_nothing_to_compare(old: Path) -> None:
    result = invoke("--compare", old, "--shape", "3,1,4,6")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "old.json has no times of numpy, cython for any of these workloads" in result.stderr


DAMAGES: dict[str, Callable[[dict], object]] = {
    "got None": lambda found: found.pop("format"),
    "of format 'elman bench 1', got 'elman bench 9'": lambda found: found.update(format="elman bench 9"),
    "KeyError: 'machine'": lambda found: found.pop("machine"),
    "KeyError: 'yardstick'": lambda found: found["measurements"][0].pop("yardstick"),
    "a time of the yardstick for each round": lambda found: found["measurements"][0]["yardstick"].pop(),
    "what must be one of": lambda found: found["measurements"][0].update(what="nothing"),
    "shape must be four positive ints T,B,I,H, got '7'": lambda found: found["measurements"][0].update(shape=[7]),
    "times must be a finite number above 0": lambda found: found["measurements"][0]["results"][0]["times"].append(-1),
    "leak must be a number above 0": lambda found: found["measurements"][0].update(leak=0),
    "noise must be a finite number": lambda found: found["measurements"][0].update(noise="1"),
    "n_labels must be a positive int": lambda found: found["measurements"][0].update(n_labels=-1),
    "num_layers must be a positive int": lambda found: found["measurements"][0].update(num_layers="2"),
    "n_threads must be a positive int": lambda found: found["machine"].update(n_threads=None),
    "budget must be a finite number": lambda found: found.update(budget=float("nan")),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_compare_with_a_file_that_is_none_of_ours(message: str, old: Path) -> None:
    _rewrite(old, DAMAGES[message])
    result = invoke("--compare", old)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {old} ")
    assert message in result.stderr


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"format": "elman ben', b"\xff\xfe", b"[" * 100_000], ids=repr)
def test_compare_with_what_is_no_json(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(content)
    result = invoke("--compare", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {path} must be a file of `elman bench --json`")


# What the kernels decide


@pytest.mark.skipif("cython" not in elman.available_backends(), reason="needs the C kernels")
def test_explain() -> None:
    text = invoke("--explain", "1000,1,64,256", "--explain", "500,64,8,100", "--threads", 2, "--bidirectional").stdout
    assert text.startswith("1000,1,64,256, float32, ")
    assert "\n500,64,8,100, float32, " in text
    assert text.count("**forward**: 2 threads") == text.count("**backward**: 2 threads") == 2
    assert text.count("2 shards of 1 row, through all time steps") == text.count("2 shards of 64 rows") == 2
    assert text.count("(chosen)") == 4
    one_direction = invoke("--explain", "1000,1,64,256", "--threads", 2).stdout
    assert one_direction.count("1 shard of 1 row; 2 threads share the columns of one") == 2
    assert one_direction.count("| 2 (chosen) |") == 2
    assert "read in place" in invoke("--explain", "1,1,2,3", "--dtype", "float64").stdout
    assert "got '3,4'" in invoke("--explain", "3,4").stderr
    alone = invoke("--explain", "60,48,24,96", "--threads", 1).stdout
    assert "at most 1 thread\n" in alone
    assert alone.count("1 thread, as there are to be no more") == 2
    assert "goes without --json" in invoke("--explain", "1,1,2,3", "--json", "there.json").stderr


@pytest.mark.skipif("cython" not in elman.available_backends(), reason="needs the C kernels")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_yardstick_does_as_much_with_each_instruction_set(dtype: str) -> None:
    own, before = native.instruction_set(), elman.get_num_threads()
    elman.set_num_threads(1)
    try:
        for name in native.instruction_sets():
            native.use_instruction_set(name)
            assert native.multiply_adds(yardstick_rounds(dtype), dtype) == pytest.approx(1e6, rel=1e-3)
    finally:
        native.use_instruction_set(own)
        elman.set_num_threads(before)


# elman accuracy


def test_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETS, "quick", [Workload(SHAPE), Workload(SHAPE, "train")])
    before = native.instruction_set()
    options = ["--stride", "4000037", "--backend", "numpy", "--backend", "cython", "--quiet"]
    result = CliRunner().invoke(main, ["accuracy", *options], prog_name="elman")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    sets = [("numpy", "NumPy's own"), *(("cython", name) for name in native.instruction_sets())]
    functions = [row for row in rows if len(row) == 6 and row[3] in ("float32", "float64")]
    assert [tuple(row[:4]) for row in functions] == [
        (*one, function, dtype)
        for one in sets
        for function in ("tanh", "sigmoid", "softplus", "retanh", "power")
        for dtype in ("float32", "float64")
    ]
    assert all(0.4 <= float(row[4]) < (4 if row[0] == "numpy" else 2) for row in functions)
    passes = [row for row in rows if row[0] in ("numpy", "cython") and row not in functions]
    assert len(passes) == 2 * len(SETS["quick"])
    assert all(0 < float(error) < 1e-4 for row in passes for error in row[1:])
    assert native.instruction_set() == before


def test_an_inexact_function_is_found() -> None:
    class Rough:
        @staticmethod
        def step(x, h, weight_ih, weight_hh, bias, h_next, *, activation):  # noqa: ARG004
            h_next[:] = np.tanh(x) * x.dtype.type(1 + 1e-6)

    assert worst_float32(Rough, "tanh", stride=1_000_003).ulp > 4
    assert worst_float64(Rough, "tanh").ulp > 1e9
    assert np.isinf(worst_float32(Rough, "power", stride=1_000_003).ulp)  # where it should be infinite


def test_every_stride_th_float() -> None:
    seen = []
    worst_float32(reference, "tanh", stride=4_000_037, advance=seen.append)
    assert 0 <= sum(seen) - count_float32(4_000_037) < 32


@pytest.mark.parametrize("options", ["--stride 0", "--set none", "--backend fortran", "--threads 0"])
def test_errors_of_accuracy(options: str) -> None:
    result = CliRunner().invoke(main, ["accuracy", *options.split()], prog_name="elman")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"'{options.split()[0]}'" in result.stderr
