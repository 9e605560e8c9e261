"""Examples in the docstrings of bridges to other frameworks run where these are installed."""

import importlib.util

BRIDGES = {"onnx": "src/elman/onnx", "sklearn": "src/elman/sklearn", "torch": "src/elman/torch"}
collect_ignore = [path for framework, path in BRIDGES.items() if importlib.util.find_spec(framework) is None]
