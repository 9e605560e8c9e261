"""The backend, by ONNX's own tests of the operator RNN and beside ONNX Runtime."""

import unittest
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import elman  # noqa: E402
import elman.onnx  # noqa: E402
from tests.bridges import onnx_graphs as graphs  # noqa: E402

Backend = elman.onnx.Backend


@pytest.fixture
def calls(monkeypatch):
    """Nonlinearities of the layers that elman has run."""
    called, call = [], elman.RNN.__call__

    def counted(rnn, *arguments, **options):
        called.append(rnn.nonlinearity)
        return call(rnn, *arguments, **options)

    monkeypatch.setattr(elman.RNN, "__call__", counted)
    return called


def test_onnx_node_tests(calls):
    """All that the installed package has with an RNN node, none skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cases of other operators divide by zero when they are made
        from onnx.backend.test import BackendTest
        from onnx.backend.test.loader import load_model_tests

        tests = BackendTest(Backend, __name__).test_cases["OnnxBackendNodeModelTest"]
        cases = {
            one.name: one.model or onnx.load(f"{one.model_dir}/model.onnx") for one in load_model_tests(kind="node")
        }
    names = sorted(name for name, model in cases.items() if any(node.op_type == "RNN" for node in model.graph.node))
    assert len(names) >= 4  # of onnx 1.17
    assert {name for name in cases if "_rnn_" in name} <= {*names}
    result = unittest.TestResult()
    unittest.TestSuite(tests(f"{name}_cpu") for name in names).run(result)
    print(*names, sep="\n")
    assert result.wasSuccessful(), result.failures + result.errors
    assert result.testsRun == len(names) == len(calls)
    assert not result.skipped


@pytest.mark.parametrize("seed", range(50))
def test_onnx_backend_beside_onnxruntime(seed, calls):
    case = graphs.drawn(seed)
    found = dict(zip(case.outputs, Backend.run_model(graphs.model_of(case), graphs.given(case)), strict=True))
    assert len(calls) == len(case.layers)
    for name, expected in graphs.by_onnxruntime(case).items():
        array = found[name].swapaxes(0, 1) if name == "y" and case.layout else found[name]
        if name == "h_n":
            array, expected = (graphs.own_end(case, one) for one in (array, expected))
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_onnx_node_in_float64_beside_loops(direction, layout, calls):
    rng, D = np.random.default_rng(0), 2 if direction == "bidirectional" else 1
    X, W, R, B, h_0 = (rng.normal(size=shape) for shape in ((7, 4, 3), (D, 5, 3), (D, 5, 5), (D, 10), (D, 4, 5)))
    names = ["X", "W", "R", "B", "", "initial_h"]
    node = helper.make_node("RNN", names, ["Y", "Y_h"], hidden_size=5, direction=direction, layout=layout)
    if layout:
        Y, Y_h = Backend.run_node(node, [X.swapaxes(0, 1), W, R, B, h_0.swapaxes(0, 1)])
        Y, Y_h = Y.transpose(1, 2, 0, 3), Y_h.swapaxes(0, 1)
    else:
        Y, Y_h = Backend.run_node(node, [X, W, R, B, h_0])
    assert calls == ["tanh"]
    for found, expected in zip((Y, Y_h), graphs.by_loops(X, W, R, B, h_0, direction), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["function", "branch"])
def test_onnx_nodes_within_functions_and_branches_are_elmans_too(kind, calls):
    model, X = graphs.within(kind), np.random.default_rng(1).normal(size=(7, 4, 3)).astype(np.float32)
    (found,) = Backend.prepare(model).run([X])
    (expected,) = ReferenceEvaluator(model).run(None, {"X": X})
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert calls == ["tanh"]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"clip": 1.0}, "clip of its RNN node 'one' must not be there, got 1.0"),
        ({"activations": ["HardSigmoid"]}, "activations of its RNN node 'one' must be one of 'Tanh'"),
        ({"activations": ["Affine"]}, "activation_alpha of its RNN node 'one' must be there for Affine"),
        ({"activations": ["Affine"], "activation_alpha": [0.5]}, "activation_alpha of its RNN node 'one' must be 1"),
    ],
)
def test_onnx_backend_refuses_what_elman_has_not(attributes, words):
    model = graphs.model_of(graphs.drawn(3, layout=0))
    node = next(one for one in model.graph.node if one.op_type == "RNN")
    node.CopyFrom(helper.make_node("RNN", node.input, node.output, name="one", hidden_size=5, **attributes))
    with pytest.raises(ValueError, match=words):
        Backend.prepare(model)
    assert not Backend.is_compatible(model)
    assert Backend.is_compatible(graphs.model_of(graphs.drawn(3)))


def test_onnx_backend_has_one_device():
    assert Backend.supports_device("CPU")
    assert Backend.supports_device("CPU:0")
    node = helper.make_node("RNN", ["X", "W", "R"], ["Y"])
    arrays = [np.ones(shape, np.float32) for shape in ((7, 4, 3), (1, 5, 3), (1, 5, 5))]
    for device, words in ("CUDA", "'CUDA'"), (None, "None"):
        assert not Backend.supports_device(device)
        with pytest.raises(ValueError, match=f"device must be 'CPU', got {words}"):
            Backend.prepare(graphs.model_of(graphs.drawn(0)), device)
        with pytest.raises(ValueError, match=f"device must be 'CPU', got {words}"):
            Backend.run_node(node, arrays, device)


def test_onnx_backend_counts_inputs():
    with pytest.raises(ValueError, match="inputs must be 1, as many as inputs of the graph, got 2"):
        Backend.prepare(graphs.within("branch")).run([1, 2])
