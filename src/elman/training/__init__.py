"""How models are trained on data sets: the loop of `fit`, callbacks, checkpoints, optimizers."""

from elman.training.callbacks import Callback, EarlyStopping, History, Training

__all__ = ["Callback", "EarlyStopping", "History", "Training"]
