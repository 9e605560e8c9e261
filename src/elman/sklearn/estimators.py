"""The estimators: their parameters, how they are trained and what they predict."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, d2_pinball_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from elman import check
from elman.data import checks as data_checks
from elman.data.inputs import Features, Tokens
from elman.data.named import in_order, labels_of
from elman.data.outputs import Categories, Output, Reals
from elman.data.scaler import Scaler
from elman.models.sequence import SequenceModel
from elman.sklearn import checks
from elman.sklearn.checks import Rows, lengths_of
from elman.training.callbacks import EarlyStopping, History
from elman.training.optimizers import AdamW
from elman.typing import Int, Real

_REALS = (np.float64, np.float32)  # the first one is what everything else becomes
_LARGEST_BATCH = 200  # of batch_size="auto", as in scikit-learn's MLPClassifier


class _Targets(NamedTuple):
    """What y says."""

    rows: Rows  # as the model takes them
    outputs: Output
    classes: NDArray[Any] | None = None


class _Estimator(BaseEstimator):
    """What the three have in common: the parameters, what X may be, how they are trained."""

    _pattern: ClassVar[str] = "many-to-one"
    model_: SequenceModel
    loss_curve_: list[float]
    validation_scores_: list[float] | None

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        nonlinearity: Any = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        scale: bool = False,
        learning_rate_init: float = 1e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        batch_size: Any = "auto",
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
        backend: str | None = None,
        tokens: Any = "auto",
    ) -> None:
        self._keep(locals())

    def __init_subclass__(cls, **options: Any) -> None:
        """The constructor as one of the class's own, so that it is what Python names where an argument is wrong."""
        super().__init_subclass__(**options)
        init: Any = cls.__init__
        if "__init__" not in vars(cls) and getattr(init, "__globals__", None) is globals():
            own = types.FunctionType(init.__code__, init.__globals__, "__init__", init.__defaults__)
            own.__kwdefaults__, own.__annotations__ = init.__kwdefaults__, init.__annotations__
            own.__qualname__ = f"{cls.__qualname__}.__init__"
            cls.__init__ = own  # type: ignore[method-assign]

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Those of a constructor as attributes, as they are: scikit-learn lets it do nothing else."""
        self.__dict__.update((name, value) for name, value in arguments.items() if name != "self")

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on sequences X with targets y.

        Parameters
        ----------
        X : array (n, T, features), list of arrays (T_i, features) or (T_i,), or array (n, T); or lists of str
            Sequences; of unequal lengths in a list; in a 2-D array, of one number at each step, as in a list of
            (T_i,). Anything but float32 becomes float64. Or sequences of tokens, as `tokens` says: lists or arrays of
            str, or str, which are sequences of characters.
        y
            The targets, as the class describes them.
        sample_weight : numbers (n,), optional
            What each sequence counts in the loss and its mean. With 0, a number to be predicted may be NaN.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument, or a parameter of the constructor, is not what it should be; the message names it.
        FloatingPointError
            If the loss or its gradient is not finite.
        """
        is_new = not (check.flag(self.warm_start, "warm_start") and hasattr(self, "model_"))
        epochs = check.positive_int(self.max_iter, "max_iter")
        targets = self._targets(self._read(y, sample_weight), is_new=is_new)
        stopping = self._stopping(targets.outputs)
        self._train(X, targets, sample_weight, self._tuned(AdamW(0.0)), is_new=is_new, epochs=epochs, stopping=stopping)
        if self.n_iter_ == epochs and stopping.state()["waited"] < stopping.patience:
            message = f"max_iter={epochs} epochs are over and the training has not converged yet"
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def _fit_part(self, X: Any, y: Any, sample_weight: Any, **options: Any) -> Self:
        """`partial_fit`: one epoch, with the optimizer of before."""
        if check.flag(self.early_stopping, "early_stopping"):
            check.refuse("early_stopping must be False for partial_fit, which sees only a part of the data")
        is_new = not hasattr(self, "model_")
        targets = self._targets(self._read(y, sample_weight), is_new=is_new, **options)
        optimizer = self._tuned(AdamW(0.0) if is_new else self._optimizer)
        return self._train(X, targets, sample_weight, optimizer, is_new=is_new, epochs=1, stopping=None)

    def _read(self, y: Any, sample_weight: Any) -> Any:  # noqa: ARG002
        """y with something harmless where its weight of 0 lets it be anything."""
        return y

    def _targets(self, y: Any, *, is_new: bool) -> _Targets:
        """y, validated. Without `is_new` the outputs are to be those of before."""
        raise NotImplementedError

    def _train(
        self,
        X: Any,
        targets: _Targets,
        sample_weight: Any,
        optimizer: AdamW,
        *,
        is_new: bool,
        epochs: int,
        stopping: EarlyStopping | None,
    ) -> Self:
        check_consistent_length(X, targets.rows)
        weights = sample_weight
        if weights is not None:
            weights = data_checks.weights(weights, "sample_weight", np.dtype(np.float64), (len(targets.rows),))
        X = self._sequences(X, reset=is_new)
        if self._pattern == "many-to-many":
            data_checks.same_lengths(lengths_of(targets.rows), lengths_of(X), "y", "X")
        seed = self._seed()
        data, held_out = self._split([X, targets.rows] if weights is None else [X, targets.rows, weights], seed)
        model = self._new_model(data[0], targets.outputs, seed) if is_new else self.model_
        history = model.fit(
            *data[:2],
            weights=data[2] if data[2:] else None,
            validation_data=held_out,
            epochs=epochs,
            batch_size=min(_LARGEST_BATCH, len(data[0])) if self.batch_size == "auto" else self.batch_size,
            optimizer=optimizer,
            clip_norm=self.clip_norm,
            callbacks=[] if stopping is None else [stopping],
            progress=bool(self.verbose),
        )
        self.model_, self._optimizer = model, optimizer
        self._record(history, stopping, is_new=is_new)
        if targets.classes is not None:
            self.classes_ = targets.classes
        return self

    def _seed(self) -> int:
        try:
            return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        except (TypeError, ValueError) as error:  # NumPy's does not name it
            check.refuse(f"random_state must be what scikit-learn takes: {error}")

    def _tuned(self, optimizer: AdamW) -> AdamW:
        """With the parameters of now, which `set_params` may have changed between two calls of `partial_fit`."""
        optimizer.lr = check.non_negative(self.learning_rate_init, "learning_rate_init")
        optimizer.weight_decay = check.non_negative(self.weight_decay, "weight_decay")
        return optimizer

    def _stopping(self, outputs: Output) -> EarlyStopping:
        is_early = check.flag(self.early_stopping, "early_stopping")
        return EarlyStopping(
            f"val_{outputs.metrics[0]}" if is_early else "loss",
            patience=check.positive_int(self.n_iter_no_change, "n_iter_no_change"),
            min_delta=check.non_negative(self.tol, "tol"),
            restore_best=is_early,
        )

    def _split(self, data: list[Any], seed: int) -> tuple[list[Any], tuple[Any, ...] | None]:
        """X, y and weights for training, and what is held out for early stopping."""
        if not self.early_stopping:
            return data, None
        name = "validation_fraction"
        fraction = check.positive(check.below_one(self.validation_fraction, name), name)
        checks.enough_held_out(math.ceil(fraction * len(data[1])), name)
        stratify = data[1] if isinstance(self, ClassifierMixin) else None
        parts = train_test_split(*data, test_size=fraction, stratify=stratify, random_state=seed)
        return parts[::2], tuple(parts[1::2])

    def _new_model(self, X: Rows, outputs: Output, seed: int) -> SequenceModel:
        seen = in_order(labels_of(X, "X")) if self._reads_tokens(X) else None
        model = SequenceModel(
            Features(X[0].shape[1], scaler=self._scaler())
            if seen is None
            else Tokens(labels=seen, unknown="<unknown>"),
            outputs,
            pattern=self._pattern,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            nonlinearity=self.nonlinearity,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            leak=self.leak,
            noise=self.noise,
            form=self.form,
            learn_leak=self.learn_leak,
            dtype=X[0].dtype if seen is None else "float32",
            seed=seed,
            backend=self.backend,
        )
        for name, weight in model.parameters().items():
            if seen is not None and name.startswith("weight_ih_l0"):
                weight[:, len(seen) :] = 0  # those that training has not seen say nothing
        return model

    def _reads_tokens(self, X: Any) -> bool:
        """Whether X holds tokens and not numbers."""
        if isinstance(self.tokens, str) and self.tokens == "auto":
            return checks.holds_text(X)
        return check.flag(self.tokens, "tokens")

    def _scaler(self) -> Scaler | None:
        return Scaler() if check.flag(self.scale, "scale") else None

    def _record(self, history: History, stopping: EarlyStopping | None, *, is_new: bool) -> None:
        """The attributes that say how the training went; lists go on in a warm start."""
        self.n_iter_ = len(history["loss"])
        self.loss_curve_ = [*([] if is_new else self.loss_curve_), *history["loss"]]
        before = [] if is_new else self.validation_scores_ or []
        self.best_loss_ = self.validation_scores_ = self.best_validation_score_ = None
        if stopping is None or not stopping.restore_best:
            self.best_loss_ = min(self.loss_curve_)
            return
        sign = -1 if stopping.monitor.endswith(("loss", "error")) else 1  # better is more
        self.validation_scores_ = [*before, *(sign * value for value in history[stopping.monitor])]
        self.best_validation_score_ = stopping.state()["best"]

    def _sequences(self, X: Any, *, reset: bool = False) -> Rows:
        """X, validated: an array (n, T, features) where all are equally long, without a copy if possible, or a list.

        scikit-learn sees the steps of all sequences below one another; without `reset` they must be like those of fit.
        """
        if not reset:
            check_is_fitted(self, "model_")
        X = X.to_list() if hasattr(X, "to_list") else X  # a column of pandas
        if self._reads_tokens(X) if reset else isinstance(self.model_.inputs, Tokens):
            self.n_features_in_ = 1
            return checks.sequences(X, "X") if reset else checks.sequences(X, "X", self.model_.inputs.coder.spelled)
        are_series = (
            not reset and self.model_.inputs.n == 1 and (self.n_features_in_ == 1 or isinstance(X, (list, tuple)))
        )
        steps, lengths = checks.steps(X, "X", are_series=are_series)
        if lengths is None or reset or self.n_features_in_ == self.model_.inputs.n:
            steps = validate_data(self, steps, reset=reset, dtype=_REALS)
        else:  # the features that scikit-learn counts are the columns of an array (n, T) of training
            steps = check_array(steps, dtype=_REALS, input_name="X", estimator=self)
        if lengths is None:  # an array (n, T)
            steps, lengths = steps.reshape(-1, 1), np.full(len(steps), steps.shape[1])
        if not reset:
            checks.as_before(steps.shape[1], self.model_.inputs.n, "X", "features at each step, as in training")
        return checks.cut(steps, lengths)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


class RNNRegressor(RegressorMixin, _Estimator):
    """Numbers for each sequence, from a recurrent network's last state: many-to-one, by default with the squared error.

    y are numbers (n,) or (n, outputs). As for any network, X and y should be of about unit size: `scale` brings them
    there.

    Parameters
    ----------
    hidden_size, num_layers, nonlinearity, bidirectional, dropout, recurrent_dropout, leak, noise, form, learn_leak,
    scale, learning_rate_init, weight_decay, clip_norm, batch_size, max_iter, tol, n_iter_no_change, early_stopping,
    validation_fraction, warm_start, random_state, verbose, backend, tokens
        Those of `RNNClassifier`. With `scale`, y is scaled, too, unless it is counts: losses are of that, and
        predictions in its units.
    loss, quantiles, distribution
        Those of `elman.Reals`.

    Attributes
    ----------
    model_, loss_curve_, best_loss_, n_iter_, validation_scores_, best_validation_score_, n_features_in_
        Those of `RNNClassifier`; scores are R², with loss="absolute_error" minus the mean absolute error, and for
        quantiles minus the mean pinball loss.

    Examples
    --------
    The sum of the first and the last of eight numbers:

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 8))
    >>> regressor = RNNRegressor(max_iter=1000, random_state=0).fit(X[:150], X[:150, 0] + X[:150, -1])
    >>> regressor.score(X[150:], X[150:, 0] + X[150:, -1]) > 0.95
    True
    >>> regressor = RNNRegressor(distribution="normal", tol=0.01, random_state=0).fit(X, X[:, 0])
    >>> regressor.predict_interval(X[:5], coverage=0.8).shape
    (5, 2)
    """

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        nonlinearity: Any = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        scale: bool = False,
        loss: Any = None,
        quantiles: Any = None,
        distribution: str | None = None,
        learning_rate_init: float = 1e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        batch_size: Any = "auto",
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
        backend: str | None = None,
        tokens: Any = "auto",
    ) -> None:
        self._keep(locals())

    def _read(self, y: Any, sample_weight: Any) -> Any:
        if sample_weight is None or y is None:
            return y
        array = check_array(y, ensure_2d=False, dtype=_REALS, ensure_all_finite=False, input_name="y")
        if np.isfinite(array).all():
            return y
        weights = data_checks.weights(sample_weight, "sample_weight", np.dtype(np.float64), (len(array),))
        array = array.copy()
        array[weights == 0] = 0
        return array

    def _targets(self, y: Any, *, is_new: bool) -> _Targets:
        y = _checked(y, _REALS)
        n = y.shape[1] if y.ndim == 2 else 1
        if n == 1:
            y = column_or_1d(y, warn=True)
        if not is_new:
            checks.as_before(n, self.model_.outputs.n, "y", "outputs for each sequence, as before")
        own = {"loss": self.loss, "quantiles": self.quantiles, "distribution": self.distribution}
        outputs = Reals(n, **own)
        return _Targets(y, outputs if outputs.are_counts else Reals(n, **own, scaler=self._scaler()))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on a part of the data, from where the last call, or `fit`, came to.

        Arguments and errors are those of `fit`.
        """
        return self._fit_part(X, y, sample_weight)

    def predict(self, X: Any) -> Real:
        """Numbers (n,), or (n, outputs) if there was more than one output in training; quantiles in a last axis."""
        rows = self._sequences(X)
        numbers: Real = self.model_.predict(rows)
        return numbers[:, 0] if numbers.shape[1] == 1 else numbers

    def predict_interval(self, X: Any, *, coverage: float = 0.9) -> Real:
        """Between which numbers a target lies with this probability, (n, 2), or (n, outputs, 2).

        As `elman.SequenceModel.predict_interval`: it needs a distribution, or these quantiles.
        """
        rows = self._sequences(X)
        ends: Real = self.model_.predict_interval(rows, coverage=coverage)
        return ends[:, 0] if ends.shape[1] == 1 else ends

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² of `predict`; of quantiles D², scikit-learn's `d2_pinball_score`, their mean."""
        if self.quantiles is None:
            return float(super().score(X, y, sample_weight))
        predicted = self.predict(X)
        each = [
            d2_pinball_score(y, predicted[..., i], sample_weight=sample_weight, alpha=q)
            for i, q in enumerate(self.quantiles)
        ]
        return float(np.mean(each))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class _Labelling(_Estimator):
    """What has classes."""

    def __init__(
        self,
        hidden_size: int = 32,
        *,
        num_layers: int = 1,
        nonlinearity: Any = "tanh",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        leak: Any = 1.0,
        noise: Any = 0.0,
        form: str = "rate",
        learn_leak: bool = False,
        scale: bool = False,
        learning_rate_init: float = 1e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        batch_size: Any = "auto",
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        class_weight: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
        backend: str | None = None,
        tokens: Any = "auto",
    ) -> None:
        self._keep(locals())

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on a part of the data, from where the last call, or `fit`, came to.

        Arguments and errors are those of `fit`.

        Parameters
        ----------
        classes : array (n_classes,)
            All labels that there will ever be. Needed in the first call.
        """
        if classes is None and not hasattr(self, "model_"):
            check.refuse("classes must be given to the first call of partial_fit")
        if self.class_weight == "balanced":
            check.refuse("class_weight='balanced' needs all of the data: give partial_fit a dict")
        return self._fit_part(X, y, sample_weight, classes=classes)

    def _encoded(self, labels: Any, *, is_new: bool, classes: Any) -> tuple[Int, Output, NDArray[Any]]:
        """Labels (n,) as numbers of the classes, these weighted as the output of a model, and all of them."""
        labels = column_or_1d(_checked(labels, None), warn=True)
        check_classification_targets(labels)
        known = np.unique(labels if classes is None else classes) if is_new else self.classes_
        if not (is_new or classes is None):
            checks.same_classes(np.unique(classes), known)
        codes = checks.codes(labels, "y", known)
        weights = self.class_weight
        if isinstance(weights, Mapping):
            weights = {key: check.positive(value, f"class_weight[{key!r}]") for key, value in weights.items()}
        if weights is not None:
            weights = compute_class_weight(weights, classes=known, y=labels)
        return codes, Categories(len(known), class_weights=weights), known


class RNNClassifier(ClassifierMixin, _Labelling):
    """A class for each sequence, from a recurrent network's last state: many-to-one, with the cross-entropy.

    y are labels (n,) of any kind: strings, integers, bool. What parameters and attributes have in common with
    scikit-learn's `MLPClassifier` has the names that it has there.

    Parameters
    ----------
    hidden_size, num_layers, nonlinearity, bidirectional, dropout, recurrent_dropout, backend
        Those of `elman.RNN`; `dropout` is between layers, `recurrent_dropout` between steps.
    leak, noise, form, learn_leak
        Likewise: leaky units, and noise in training.
    scale : bool
        Whether features are less their means, divided by their standard deviations, which the first `fit` of a warm
        start, or the first `partial_fit`, finds in what it trains on. See `elman.Scaler`.
    learning_rate_init, weight_decay : float
        Of `elman.AdamW`.
    clip_norm : float or None
        The gradient is scaled down to this Euclidean norm.
    batch_size : int or "auto"
        Sequences in an update; "auto" are all, but at most 200.
    max_iter : int
        Epochs. If training has not converged by then, there is a `ConvergenceWarning`.
    tol, n_iter_no_change : float, int
        Training has converged, and ends, when it has not been better by more than `tol` for `n_iter_no_change` epochs:
        the loss, or with `early_stopping` the validation score.
    early_stopping : bool
        Whether to hold a part of the data out, score the model on it after each epoch, and keep the best.
    validation_fraction : float
        That part. It is stratified by class.
    class_weight : dict from labels to numbers, "balanced" or None
        What a label counts in the loss and its mean; fixed, as the sizes are, for all of a warm start.
    warm_start : bool
        Whether `fit` goes on from where the last one came to.
    random_state : int, numpy.random.RandomState or None
        The same int gives the same bits.
    verbose : bool
        Whether to show a progress bar.
    tokens : "auto" or bool
        Whether X holds tokens, such as words, and not numbers: by default where it holds str; with True integers are
        tokens, too. `fit` learns which there are, and others say nothing: a unit gets nothing from them.

    Attributes
    ----------
    model_ : SequenceModel
        With which one can go on: save it, stream, look at gradients.
    classes_ : array (n_classes,)
        The labels, sorted: the columns of `predict_proba`.
    loss_curve_ : list of float
        The mean loss of each epoch.
    best_loss_ : float or None
        The least of them; None with `early_stopping`.
    n_iter_ : int
        Epochs in the last call of `fit` or `partial_fit`.
    validation_scores_ : list of float or None
        With `early_stopping`, the accuracy of each epoch on the part held out.
    best_validation_score_ : float or None
        With `early_stopping`, that of the parameters that were kept: none is better by more than `tol`.
    n_features_in_ : int
        Features of a step; of 2-D X, T.
    feature_names_in_ : array of str
        If X was a data frame.

    Examples
    --------
    Does a series rise or fall?

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 8)).cumsum(axis=1)
    >>> y = np.where(X[:, -1] > X[:, 0], "rises", "falls")
    >>> classifier = RNNClassifier(learning_rate_init=0.01, tol=1e-3, random_state=0).fit(X[:150], y[:150])
    >>> classifier.score(X[150:], y[150:]) > 0.9
    True
    >>> classifier.classes_.tolist()
    ['falls', 'rises']
    >>> classifier.predict_proba(X[150:]).shape
    (50, 2)
    """

    def _targets(self, y: Any, *, is_new: bool, classes: Any = None) -> _Targets:
        return _Targets(*self._encoded(y, is_new=is_new, classes=classes))

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest label of each sequence, (n,)."""
        rows = self._sequences(X)
        return np.asarray(self.classes_[self.model_.predict(rows)])

    def predict_proba(self, X: Any) -> Real:
        """The probability of each class, (n, n_classes), in the order of `classes_`."""
        rows = self._sequences(X)
        return np.asarray(self.model_.predict_proba(rows))

    def predict_log_proba(self, X: Any) -> Real:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))


class RNNTagger(_Labelling):
    """A class for each step: many-to-many, with the cross-entropy.

    y is a list of sequences of labels (T_i,), or an array (n, T), as long as those of X. A label is of any kind.

    Parameters
    ----------
    hidden_size, num_layers, nonlinearity, bidirectional, dropout, recurrent_dropout, leak, noise, form, learn_leak,
    scale, learning_rate_init, weight_decay, clip_norm, batch_size, max_iter, tol, n_iter_no_change, early_stopping,
    validation_fraction, class_weight,
    warm_start, random_state, verbose, backend, tokens
        Those of `RNNClassifier`.

    Attributes
    ----------
    model_, classes_, loss_curve_, best_loss_, n_iter_, validation_scores_, best_validation_score_, n_features_in_
        Those of `RNNClassifier`.

    Examples
    --------
    Has there been a number below 0 so far?

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(1, 1, size=(n, 1)) for n in rng.integers(3, 12, 200)]
    >>> y = [np.where(np.minimum.accumulate(x[:, 0]) < 0, "yes", "no") for x in X]
    >>> tagger = RNNTagger(learning_rate_init=0.01, max_iter=500, tol=1e-3, random_state=0).fit(X[:150], y[:150])
    >>> tagger.score(X[150:], y[150:]) > 0.95
    True
    >>> tagger.predict([[[1.0], [-2.0], [1.0]]]).tolist()
    [['no', 'yes', 'yes']]
    """

    _pattern = "many-to-many"

    def _targets(self, y: Any, *, is_new: bool, classes: Any = None) -> _Targets:
        labels, lengths = checks.label_sequences(y, "y")
        codes, outputs, known = self._encoded(labels, is_new=is_new, classes=classes)
        return _Targets(checks.cut(codes, lengths), outputs, known)

    def predict(self, X: Any) -> Any:
        """The likeliest label of each step: a list of (T_i,), or an array (n, T) where all are equally long."""
        rows = self._sequences(X)
        codes = self.model_.predict(rows)
        return self.classes_[codes] if isinstance(codes, np.ndarray) else [self.classes_[each] for each in codes]

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class at each step: a list of (T_i, n_classes), or an array (n, T, n_classes)."""
        rows = self._sequences(X)
        return self.model_.predict_proba(rows)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The part of all steps that get their label; `sample_weight` (n,) is what those of a sequence count."""
        labels, lengths = checks.label_sequences(y, "y")
        check_consistent_length(X, lengths, sample_weight)
        weights = None if sample_weight is None else np.repeat(sample_weight, lengths)
        return float(accuracy_score(labels, np.concatenate(list(self.predict(X))), sample_weight=weights))


def _checked(y: Any, dtype: Any) -> NDArray[Any]:
    if y is None:
        check.refuse("fit requires y to be passed, but the target y is None")
    return np.asarray(check_array(y, ensure_2d=False, dtype=dtype, input_name="y"))
