"""Every number that a user passes works, or is an error that names it, and nothing is changed.

`CASES` has a valid call of each public function. A parameter that is annotated as a number and is in none of them fails
`test_no_number_is_missing`.
"""

import importlib.util
import inspect
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner

import elman
from elman import cli, schedules, tasks
from elman.layer.architecture import Architecture
from elman.layer.rnn import stack_of
from elman.models import streaming
from elman.training import loop, optimizers

VALUES = [
    *(2**31, 2**63, 2**64, 2**1024, 10**400, 10**5000, -(10**5000), -1, 0, 1),  # Python does not print 10**5000
    *(float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, 0.5, 2.0),
    *(True, False, "3", "²", "auto", None, 1 + 0j, [1], (1, 2), object()),
    *(np.float32(0.5), np.float32("nan"), np.longdouble("1e4000"), np.float16(1), np.int8(1), np.uint64(2**64 - 1)),
    *(np.array(1), np.array(0.5), np.array([1]), np.bool_(True), np.timedelta64(1, "D"), np.datetime64("2000")),
]


class Case(NamedTuple):
    """A call that works, and what it must leave as it was where an argument is refused."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    subject: Any = None


X, Y = [[0, 1, 2, 0], [1, 2]], [[1, 2, 0, 1], [2, 0]]
STEPS = np.array([X[0], X[0]]).T, np.array([Y[0], Y[0]]).T


def model(kind: Any = elman.SequenceModel) -> Any:
    return kind(elman.Tokens(3), elman.Categories(3), hidden_size=4, seed=0, backend="numpy")


def stop(training: Any) -> None:
    """However many epochs were asked for."""
    training.stop()


FIT = {"epochs": 1, "batch_size": 2, "progress": False, "callbacks": [stop], "clip_norm": 1.0, "clip_value": 1.0}


def sequence_model(name: str, **arguments: Any) -> Callable[[], Case]:
    def case() -> Case:
        own, optimizer = model(), elman.SGD(0.1)
        given = {"optimizer": optimizer} if name in ("fit", "train_step") else {}
        return Case(getattr(own, name), given | arguments, (own, optimizer))

    return case


def checkpointed(kind: Any, folder: Any, **arguments: Any) -> Case:
    own, optimizer = model(kind), elman.SGD(0.1)
    file = folder / "checkpoint.safetensors"
    return Case(own.fit, dict(X=X, Y=Y, optimizer=optimizer, checkpoint=file, **FIT, **arguments), (own, optimizer))


def seq2seq(name: str, **arguments: Any) -> Callable[[], Case]:
    def case() -> Case:
        own = model(elman.Seq2Seq)
        return Case(getattr(own, name), arguments, own)

    return case


def interval_of(name: str) -> Callable[[], Case]:
    def case() -> Case:
        outputs = elman.Reals(1, distribution="normal")
        own = elman.SequenceModel(elman.Tokens(3), outputs, hidden_size=4, seed=0, backend="numpy")
        return Case(getattr(own, name), {"X": X}, own)

    return case


def forecast() -> Case:
    outputs = elman.Reals(1, distribution="normal")
    own = elman.SequenceModel(elman.Features(1), outputs, hidden_size=4, seed=0, backend="numpy")
    return Case(own.forecast, {"history": np.zeros((2, 3, 1)), "steps": 2, "seed": 0}, own)


def backtested() -> Case:
    def model(_: Any) -> elman.SequenceModel:
        return elman.SequenceModel(elman.Features(1), elman.Reals(1), hidden_size=4, seed=0, backend="numpy")

    return Case(elman.backtest, {"model": model, "series": np.zeros((2, 9, 1)), "steps": 2, "first": 4})


def simple(function: Any, **arguments: Any) -> Callable[[], Case]:
    return lambda: Case(function, arguments)


def threads() -> Case:
    before = elman.get_num_threads()
    return Case(lambda n: (elman.set_num_threads(n), elman.set_num_threads(before)), {"n": 2})


def curve(folder: Any) -> Case:
    from elman.plot import loss_curve

    return Case(loss_curve, {"path": folder / "curve.png", "losses": [2.0], "validation_losses": {}, "bigram": 3.0})


def estimator(name: str) -> Callable[[], Case]:
    """Parameters of the constructor are looked at in `fit`."""

    def case() -> Case:
        import elman.sklearn

        X = np.random.default_rng(0).normal(size=(8, 3, 1))
        y = {"RNNClassifier": np.arange(8) % 2, "RNNRegressor": X[:, 0, 0], "RNNTagger": (X[..., 0] > 0).astype(int)}

        def fitted(**parameters: Any) -> None:
            getattr(elman.sklearn, name)(**parameters).fit(X, y[name])

        ends = {"max_iter": 2, "tol": 1e9, "n_iter_no_change": 1}  # however many iterations were asked for
        held_out = {"early_stopping": True, "validation_fraction": 0.5}
        return Case(fitted, ends | {"hidden_size": 2, "random_state": 0} | (held_out if name != "RNNTagger" else {}))

    return case


def interval_of_regressor() -> Case:
    import elman.sklearn

    own = elman.sklearn.RNNRegressor(2, distribution="normal", max_iter=2, tol=1e9, n_iter_no_change=1)
    return Case(own.fit(np.zeros((4, 3, 1)), np.zeros(4)).predict_interval, {"X": np.zeros((4, 3, 1))}, own)


def of_folder(function: Any, *arguments: Any, **options: Any) -> Callable[..., Case]:
    return lambda folder: function(*arguments, folder, **options)


MODEL = {"inputs": elman.Tokens(3), "outputs": elman.Categories(3), "hidden_size": 4, "backend": "numpy"}
CASES: dict[str, Callable[..., Case]] = {
    "RNN": simple(elman.RNN, input_size=2, hidden_size=3),
    "SequenceModel": simple(elman.SequenceModel, **MODEL),
    "SequenceModel.train_step": sequence_model("train_step", x=STEPS[0], y=STEPS[1]),
    "SequenceModel.loss_and_grads": sequence_model("loss_and_grads", x=STEPS[0], y=STEPS[1]),
    "SequenceModel.generate": sequence_model("generate", start=0, length=2, seed=0),
    "SequenceModel.forecast": forecast,
    "SequenceModel.fit": of_folder(checkpointed, elman.SequenceModel),
    "SequenceModel.predict": sequence_model("predict", X=X),
    "SequenceModel.predict_interval": interval_of("predict_interval"),
    "SequenceModel.predict_distribution": interval_of("predict_distribution"),
    "SequenceModel.predict_proba": sequence_model("predict_proba", X=X),
    "SequenceModel.evaluate": sequence_model("evaluate", X=X, Y=Y),
    "SequenceModel.stream": sequence_model("stream"),
    "SequenceModel.find_lr": sequence_model("find_lr", X=X, Y=Y, steps=2),
    "Seq2Seq": simple(elman.Seq2Seq, **MODEL),
    "Seq2Seq.fit": of_folder(checkpointed, elman.Seq2Seq),
    "Seq2Seq.predict": seq2seq("predict", X=X, max_length=2),
    "Seq2Seq.generate": seq2seq("generate", X=X, max_length=2, seed=0),
    "Seq2Seq.find_lr": seq2seq("find_lr", X=X, Y=Y, steps=2),
    "Seq2Seq.evaluate": seq2seq("evaluate", X=X, Y=Y),
    "Tokens": simple(elman.Tokens, n=1, embedding_dim=2),
    "Columns": simple(lambda n: elman.Columns(elman.Tokens(n), elman.Features(1)), n=1),
    "Features": simple(elman.Features, n=1),
    "Categories": simple(elman.Categories, n=1),
    "Binary": simple(elman.Binary),
    "Labels": simple(elman.Labels, n=1),
    "Reals": simple(elman.Reals, loss="quantile", quantiles=(0.1, 0.5)),
    "Scaler.fit": simple(elman.Scaler().fit, X=[[1.0, 2.0]], missing=np.nan),
    "Windows": simple(elman.Windows, series=np.zeros(9, int), length=3, stride=2, horizon=1),
    "SGD": simple(elman.SGD, lr=0.1),
    "Adagrad": simple(elman.Adagrad, lr=0.1),
    "Adam": simple(elman.Adam, lr=0.1),
    "AdamW": simple(elman.AdamW, lr=0.1),
    "EarlyStopping": simple(elman.EarlyStopping),
    "ReduceOnPlateau": simple(elman.ReduceOnPlateau),
    "backtest": backtested,
    "set_num_threads": threads,
    "fit_many": lambda: Case(lambda **options: elman.fit_many([model()], X, Y, **options), FIT),
    "fixed_points": simple(elman.fixed_points, rnn=elman.RNN(1, 2), x=np.zeros(1), start=np.zeros((3, 2))),
    "schedules.Constant": simple(schedules.Constant),
    "schedules.Constant.__call__": simple(schedules.Constant(warmup=1), done=0.5, epochs=2),
    "schedules.Cosine": simple(schedules.Cosine),
    "schedules.Cosine.__call__": simple(schedules.Cosine(warmup=1), done=0.5, epochs=2),
    "schedules.Step": simple(schedules.Step, every=1),
    "schedules.Step.__call__": simple(schedules.Step(1, factor=1e300), done=0.5, epochs=2),
    "tasks.copy_baseline": simple(tasks.copy_baseline, n_symbols=2, n_copied=2, delay=2),
    "tasks.adding": simple(tasks.adding, n=2),
    "tasks.copy": simple(tasks.copy, n=2),
    "tasks.parity": simple(tasks.parity, n=2),
    "tasks.temporal_order": simple(tasks.temporal_order, n=2),
    "tasks.embedded_reber": simple(tasks.embedded_reber, n=2),
    "tasks.sines": simple(tasks.sines, n=2),
    "tasks.flip_flop": simple(tasks.flip_flop, n=2),
}
if importlib.util.find_spec("matplotlib"):
    CASES["plot.loss_curve"] = curve
if importlib.util.find_spec("sklearn"):
    CASES |= {f"sklearn.{name}": estimator(name) for name in ("RNNClassifier", "RNNRegressor", "RNNTagger")}
    CASES["sklearn.RNNRegressor.predict_interval"] = interval_of_regressor

# Numbers that an annotation does not tell of: (call, parameter, what a message calls it, the argument with the number)
NESTED: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    ("Adam", "betas", "betas[0]", lambda value: (value, 0.9)),
    ("AdamW", "betas", "betas[1]", lambda value: (0.9, value)),
    ("SequenceModel.fit", "tbptt", "tbptt[0]", lambda value: (value, 2**62)),
    ("SequenceModel.fit", "tbptt", "tbptt[1]", lambda value: (1, value)),
    ("SequenceModel.find_lr", "lr", "lr[0]", lambda value: (value, 1e9)),
    ("SequenceModel.fit", "validation_data", "validation_data[2]", lambda value: (X, Y, [value, 1])),
    ("SequenceModel.fit", "weights", "weights", lambda value: [value, 1]),
    ("SequenceModel.train_step", "weights", "weights", lambda value: [value, 1]),
    ("SequenceModel.train_step", "lengths", "lengths", lambda value: [value, 1]),
    ("SequenceModel.train_step", "x", "x", lambda value: [[value, 0]] * 4),
    ("SequenceModel.train_step", "y", "y", lambda value: [[value, 0]] * 4),
    ("SequenceModel.generate", "start", "start", lambda value: value),
    ("SequenceModel.predict", "X", "X", lambda value: [[value]]),
    ("Categories", "class_weights", "class_weights", lambda value: [value]),
    ("Binary", "class_weights", "class_weights", lambda value: [1, value]),
    ("Reals", "quantiles", "quantiles", lambda value: [0.1, value]),
    ("fit_many", "workers", "workers", lambda value: value),
]
if "sklearn.RNNClassifier" in CASES:
    NESTED += [
        ("sklearn.RNNClassifier", "batch_size", "batch_size", lambda value: value),
        ("sklearn.RNNClassifier", "random_state", "random_state", lambda value: value),
        ("sklearn.RNNClassifier", "class_weight", "class_weight", lambda value: {0: value, 1: 1}),
    ]
MEMORIES = [
    "1e999GB",
    "9" * 5000 + "B",
    "9" * 400 + "GB",
    "0B",
    "-1B",
    "nanB",
    "infGB",
    "²B",
    "1_0B",
    "",
    "B",
    ".B",
    "1B",
]


def numbers(function: Any) -> list[str]:
    """The parameters of a function that are annotated as numbers."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if re.search(r"^[^\[]*\b(int|float)\b", str(each.annotation))]


def public_functions() -> Iterator[tuple[str, Any]]:
    """The functions and classes of the public API and, of classes, the methods, by the names of `CASES`."""
    modules: list[tuple[str, Any, list[str]]] = [("", elman, elman.__all__)]
    modules += [(f"{m.__name__.split('.')[-1]}.", m, [n for n in vars(m) if n[0] != "_"]) for m in (schedules, tasks)]
    if "plot.loss_curve" in CASES:
        from elman import plot

        modules.append(("plot.", plot, ["gradient_flow", "loss_curve"]))
    if "sklearn.RNNClassifier" in CASES:
        from elman import sklearn

        modules.append(("sklearn.", sklearn, sklearn.__all__))
    found = {f"{prefix}{name}": getattr(m, name) for prefix, m, names in modules for name in names}
    found |= {"Stream": streaming.Stream, "Optimizer": optimizers.Optimizer, "Training": loop.Training}
    for name, thing in found.items():
        if not getattr(thing, "__module__", "").startswith("elman"):
            continue
        if isinstance(thing, FunctionType):
            yield name, thing
        elif isinstance(thing, type):
            if name not in ("Stream", "Optimizer", "Training", "History"):  # these are made by others, or a dict
                yield name, thing
            ours = [kind for kind in thing.__mro__ if kind.__module__.startswith("elman")]
            for method in sorted({key for kind in ours for key in vars(kind)}):
                is_public = method[0] != "_" or method == "__call__"
                if is_public and isinstance(getattr(thing, method), FunctionType):
                    yield f"{name}.{method}", getattr(thing, method)


def make(name: str, folder: Any) -> Case:
    return CASES[name](folder) if "folder" in inspect.signature(CASES[name]).parameters else CASES[name]()


PARAMETERS = [(name, parameter) for name, function in public_functions() for parameter in numbers(function)]


def test_no_number_is_missing() -> None:
    known = {name for name, _ in PARAMETERS}
    assert known <= set(CASES), "a public function with numbers among its arguments needs a case here"
    assert len(PARAMETERS) > 80


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:max_iter=2 epochs are over")
def test_cases_are_valid(name: str, tmp_path: Any) -> None:
    case = make(name, tmp_path)
    case.function(**case.arguments)


def check(case: Case, parameter: str, argument: Any, shown: str) -> None:
    before = pickle.dumps(case.subject)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)  # a training that has not converged
            case.function(**{**case.arguments, parameter: argument})
    except FloatingPointError:
        assert parameter in ("learning_rate_init", "weight_decay") or re.match(
            "(activation|weight)_l", parameter
        )  # of 1e308
    except (TypeError, ValueError) as error:
        assert re.search(rf"(^|\W){re.escape(shown)}", str(error)), error  # noqa: PT017
        assert pickle.dumps(case.subject) == before


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_numbers(name: str, parameter: str, tmp_path: Any) -> None:
    for value in VALUES:
        check(make(name, tmp_path), parameter, value, parameter)


@pytest.mark.parametrize(("name", "parameter", "shown", "argument"), NESTED)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_numbers_in_arguments(
    name: str, parameter: str, shown: str, argument: Callable[[Any], Any], tmp_path: Any
) -> None:
    for value in VALUES:
        check(make(name, tmp_path), parameter, argument(value), shown)


@pytest.mark.parametrize("memory", MEMORIES)
def test_memory(memory: str, tmp_path: Any) -> None:
    for name in ("SequenceModel.train_step", "SequenceModel.loss_and_grads", "SequenceModel.fit"):
        case = make(name, tmp_path)  # `fit` has drawn the order of the batches before it knows how large they are
        check(case._replace(subject=case.subject[0].parameters()), "memory", memory, "memory")


HUGE = 2**31 - 1  # allowed, but not in all places at once


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: elman.RNN(HUGE, HUGE), "input_size=2147483647, hidden_size=2147483647"),
        (lambda: elman.RNN(1, HUGE, 2**16 - 1), "hidden_size=2147483647, num_layers=65535"),
        (lambda: elman.SequenceModel(elman.Tokens(HUGE), elman.Binary(), hidden_size=HUGE), "hidden_size=2147483647"),
        (lambda: elman.Seq2Seq(elman.Tokens(HUGE), elman.Categories(2), hidden_size=HUGE), "hidden_size=2147483647"),
        (lambda: tasks.adding(HUGE, n_steps=HUGE), "n=2147483647, n_steps=2147483647"),
        (lambda: tasks.copy(HUGE, n_copied=HUGE), "n=2147483647, n_copied=2147483647, delay=20"),
        (lambda: tasks.temporal_order(HUGE, n_steps=HUGE), "n=2147483647, n_steps=2147483647"),
        (lambda: tasks.sines(HUGE, n_steps=HUGE), "n=2147483647, n_steps=2147483647"),
    ],
)
def test_sizes_that_are_too_large_together(call: Callable[[], Any], names: str) -> None:
    with pytest.raises(
        ValueError, match=f"{names}.* must be smaller together: they stand for an array of [0-9]+ bytes"
    ):
        call()


def test_a_stream_that_is_too_large() -> None:
    own = model()
    stack_of(own.rnn).architecture = Architecture(3, HUGE)  # memory for it is not needed here
    with pytest.raises(ValueError, match="batch_size=2147483647, hidden_size=2147483647 must be smaller"):
        own.stream(HUGE)


# The command line: options are looked at before a command begins

TEXTS = [
    "-1",
    "0",
    "nan",
    "inf",
    "2147483648",
    "1e999",
    "9" * 400,
    "9" * 5000,
    "²",
    "٣",
    "1_0",
    "",
    " ",
    "True",
    "0x10",
]
OPTIONS = [
    (name, option)
    for name, command in cli.main.commands.items()
    for option in command.params
    if isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType))
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_options(name: str, option: click.Option) -> None:
    command, flag = cli.main.commands[name], option.opts[0]
    parent = click.Context(cli.main, **cli.main.context_settings)  # else click remembers other names of --help
    for text in TEXTS:
        try:
            found = command.make_context(name, [f"{flag}={text}"], parent=parent).params[option.name]
        except click.MissingParameter:  # of another one, MODEL
            pass
        except click.BadParameter as error:
            assert f"'{flag}'" in error.format_message()  # noqa: PT017
        else:
            assert np.isfinite(found) if isinstance(found, float) else flag == "--seed" or 0 <= found < 2**31


@pytest.mark.parametrize("option", ["--shape", "--explain"])
def test_shapes(option: str) -> None:
    for text in TEXTS:
        done = CliRunner().invoke(cli.main, ["bench", f"{option}={text},1,1,1"])
        assert done.exit_code == 2
        assert f"'{option}'" in done.stderr
