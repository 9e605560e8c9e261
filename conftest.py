"""Examples in the docstrings of bridges to other frameworks run where these are installed."""

import importlib.util
import os

BRIDGES = {"onnx": "src/elman/onnx", "sklearn": "src/elman/sklearn", "torch": "src/elman/torch"}
collect_ignore = [path for framework, path in BRIDGES.items() if importlib.util.find_spec(framework) is None]

# Keras has one backend in a process, which it takes from there
KERAS_FILES = {"torch": ("on_jax.py", "xla.py"), "jax": ("on_torch.py",)}
backend = os.environ.get("KERAS_BACKEND") if importlib.util.find_spec("keras") else None
collect_ignore += [f"src/elman/keras/{name}" for name in KERAS_FILES.get(backend, ())]
collect_ignore += [] if backend in KERAS_FILES else ["src/elman/keras"]
