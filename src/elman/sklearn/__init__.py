"""scikit-learn's API around `elman.SequenceModel`, for its pipelines, searches and cross-validation.

Needs scikit-learn, which `pip install 'elman[sklearn]'` brings along.
"""

try:
    from elman.sklearn.estimators import RNNClassifier, RNNRegressor, RNNTagger
except ImportError as error:
    raise ImportError("elman.sklearn needs scikit-learn 1.6 or later: pip install 'elman[sklearn]'") from error

__all__ = ["RNNClassifier", "RNNRegressor", "RNNTagger"]
