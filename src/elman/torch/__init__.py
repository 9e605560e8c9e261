"""PyTorch programs on elman's kernels: `accelerate` for models as they are, `RNN` for new ones.

Imported only on request: `import elman.torch`. Needs PyTorch, which `pip install 'elman[torch]'` brings.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("elman.torch needs PyTorch: pip install 'elman[torch]'") from error

from elman.replaced import Report
from elman.torch.leaky import LeakyRNN
from elman.torch.modules import RNN, RNNCell
from elman.torch.replacement import accelerate, restore

__all__ = ["RNN", "LeakyRNN", "RNNCell", "Report", "accelerate", "restore"]
