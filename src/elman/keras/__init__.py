"""Keras programs on elman's kernels: `accelerate` for models as they are, `SimpleRNN` for new ones.

Imported only on request: `import elman.keras`. Needs Keras 3, which `pip install 'elman[keras]'` brings, on its backend
torch or jax, which it chooses itself.
"""

try:
    import keras as _keras
except ImportError as error:
    raise ImportError("elman.keras needs Keras and PyTorch or JAX: pip install 'elman[keras]' torch") from error

if _keras.backend.backend() in ("tensorflow", "numpy", "openvino"):
    raise ImportError(
        f"elman.keras needs Keras's backend torch or jax, got {_keras.backend.backend()}: "
        "set the environment variable KERAS_BACKEND before keras is imported"
    )

from elman.keras.layer import FallbackWarning, SimpleRNN
from elman.keras.passes import Calls, kernel_calls
from elman.keras.replacement import accelerate, restore
from elman.replaced import Report

__all__ = ["Calls", "FallbackWarning", "Report", "SimpleRNN", "accelerate", "kernel_calls", "restore"]
