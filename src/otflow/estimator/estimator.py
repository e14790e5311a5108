"""OTFlow: the scikit-learn face of the library."""

from typing import Any

import numpy as np

from otflow.data.beside import check_mapped, check_prepared, check_validation, divide, read_rows
from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.data.quirks import warn_of_quirks
from otflow.data.shards import ShardedTable
from otflow.estimator.fitting import TrainingDivergedError
from otflow.estimator.judged import JudgedEstimator
from otflow.estimator.material import of_density, of_rows, of_stream
from otflow.estimator.settings import Settings
from otflow.support.frames import names_of
from otflow.support.precision import precision
from otflow.targets import AbstractTarget
from otflow.training import Watch

__all__ = ["OTFlow", "TrainingDivergedError"]


class OTFlow(JudgedEstimator):
    """A normalizing flow that minimises transport + alpha nll + beta straightness (SPEC 1).

    Data is standardised inside by default; log-densities, samples and inverse transforms are in
    the data's own units, `transform` goes to the target's. Costs in `history_` are those of the
    space the flow is trained in.

    Parameters:
        alpha: weight of the nll, > 0. The larger, the better the density and the closer to
            optimal transport in the limit; the harder to train.
        beta: weight, >= 0, of what is 0 on optimal paths: the straightness, or hjb with rk4. None
            is 3 alpha for convex stages, whose paths are then straight to a few percent, and 0 for
            a network. 0 gives the best density a step.
        width: m, ridges a stage of convex stages or units a layer of a network. None is decided by
            the rows and columns, `otflow.estimator.defaults.ridges`, or 64 for a network.
        depth: L, residual layers of a network; 0 is a sum of ridge functions, the cheapest in high
            dimension and the easiest to bring to its optimum. No part of convex stages.
        scheme: "conforming" (exact likelihood at any number of steps) or "rk4" (as published; its
            n_steps is refined while training where step doubling finds an nll error over 0.02).
        n_steps: time steps of the scheme; None is 4 for conforming, 8 for rk4. One conforming step
            is Brenier's map, the most exact for optimal transport; more steps fit densities better.
        n_probes: random directions of Hutchinson's estimate of the trace in training steps of rk4,
            for large d; 0 is the exact trace. Validation and scoring are always exact.
        max_iter: most optimiser steps.
        natural_iter: natural-gradient steps after those: second order, for small gaps to the
            optimum; up to 8,000 parameters.
        batch_size: rows a step.
        learning_rate: peak of the learning-rate schedule; None is 0.05 for convex stages (0.005
            to another target than N(0, I)), 0.01 for a network.
        weight_decay: pull of the stages' directions towards 0, >= 0, as in AdamW: less of the rows
            is learned by heart. None is decided for convex stages to N(0, I): 0 where rows are
            many, up to 1 where they are few for so many columns. 0 for a network.
        patience: validations (one every 25 steps) without improvement before stopping.
        plan_iter: steps of a start from the optimal transport plan between rows and draws from the
            target, before those of max_iter; 0 for none. None is 1000 for convex stages towards
            another target than N(0, I). With n_steps=1 they minimise Kantorovich's dual, whose
            optimum is the optimal map: many of them for an exact map, no matter how thin a target.
        merging: share of max_iter during which the components of a mixture target come apart, from
            one place to where they are: the likelihood alone does not carry mass over the gap
            between two, and some would stay in the wrong one. No effect on other targets.
        validation_fraction: share of X held out when X_val is not given, one row at least where
            there are four; 0 uses all rows to train and never stops early.
        base: "gaussian" starts from the solution between the Gaussians with the moments of the
            data and of the target (SPEC 2.1), None from a random network.
        random_state: an integer gives the same result every time; a NumPy RandomState moves on
            with every call; None is a fresh seed. `sample` uses it too.
        dtype: "float32" or "float64".
        standardize: scale every column to mean 0 and standard deviation 1 first.
        bounds: column -> (lower, upper), each a number or None: the column is trained on as
            log(x - lower), -log(upper - x), or the logit between both; the density is 0 outside.
            In a dequantised column they are its least and greatest possible value.
        dequantize: "auto" finds integer and rounded columns, a number is a rounding step for all
            columns, a dictionary has the steps by column. Training adds uniform noise over x -+
            step / 2; `sample` rounds. See `log_mass_bound`.
        arcsinh: "auto" finds columns with heavy tails; or column -> scale > 0 in its units, or None
            for half its interquartile range: trained on as arcsinh((x - median) / scale).
        warm_start: `fit` goes on from the fitted weights, see `partial_fit`.
        target: an object of `otflow.targets`, in the space the flow is trained in; None is the
            standard normal.
        potential: "convex": a convex function of its own for every step of the conforming scheme
            (SPEC 2.2). Every step is then a bijection of the whole space whatever the data, so the
            density integrates to one. "resnet": the published network of (x, t), with any scheme;
            its map may fold, which is measured. None is "convex", but "resnet" with rk4.
        verbose: show a progress bar (on a terminal only).

    Attributes:
        flow_: the trained `Flow`, in the standardised space.
        standardizer_: the affine map to that space, after column_map_.
        column_map_: the columns' bounds, rounding steps, and centres and scales of arcsinh.
        history_: one entry a validation of the last fit, see `otflow.training.TrainingResult`.
        n_iter_: optimiser steps behind the weights that were kept; 0 where the start was best.
        status_: why training stopped.
        integral_: of the density, estimated where the map may fold (mean over the conditions); None
            where it cannot (convex stages: one by construction) and of files that do not hold it.
        decided_: what the data decided where a setting is None, by name.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        alpha: float = 30.0,
        beta: float | None = None,
        width: int | None = None,
        depth: int = 1,
        scheme: str = "conforming",
        n_steps: int | None = None,
        n_probes: int = 0,
        max_iter: int = 4000,
        natural_iter: int = 0,
        batch_size: int = 512,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        patience: int = 20,
        plan_iter: int | None = None,
        merging: float = 0.6,
        validation_fraction: float = 0.1,
        base: str | None = "gaussian",
        random_state: Any = None,
        dtype: str = "float32",
        standardize: bool = True,
        bounds: Any = None,
        dequantize: Any = None,
        arcsinh: Any = None,
        warm_start: bool = False,
        target: AbstractTarget | None = None,
        potential: str | None = None,
        verbose: bool = True,
    ):
        self.alpha = alpha
        self.beta = beta
        self.width = width
        self.depth = depth
        self.scheme = scheme
        self.n_steps = n_steps
        self.n_probes = n_probes
        self.max_iter = max_iter
        self.natural_iter = natural_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.plan_iter = plan_iter
        self.merging = merging
        self.validation_fraction = validation_fraction
        self.base = base
        self.random_state = random_state
        self.dtype = dtype
        self.standardize = standardize
        self.bounds = bounds
        self.dequantize = dequantize
        self.arcsinh = arcsinh
        self.warm_start = warm_start
        self.target = target
        self.potential = potential
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        X_val: Any = None,
        condition: Any = None,
        condition_val: Any = None,
        sample_weight: Any = None,
        **watch: Any,
    ) -> "OTFlow":
        """Train on the rows of X.

        Args:
            X: (n, d) finite numbers, n >= 2, no constant column; or a `ShardedTable`, whose files
                are streamed through with bounded memory, and of which at most about 16,384 rows
                are held out. A stream takes none of the other arguments but `watch`, and neither
                bounds, dequantize, arcsinh, natural_iter nor warm_start.
            y: ignored.
            X_val: (l, d) rows for early stopping; by default a share of X is held out.
            condition: (n, k) finite numbers: the flow is then one density of x for every c, and
                every other method needs a condition too. Columns are standardised inside, except
                those of 0 and 1 (one-hot categories).
            condition_val: (l, k), with X_val.
            sample_weight: (n,) numbers >= 0: what each row counts in the means of training,
                validation and standardisation. Rows of weight 0 are left out.
            watch: `checkpoint` (a file for the run's state, written every `checkpoint_every` steps
                and on Ctrl-C or SIGTERM), `resume` (go on from it where it exists, with the same
                result bit for bit), `on_validation` (called with every row of the history): the
                fields of `otflow.training.Watch`.

        Returns:
            self.

        Raises:
            ValueError, TypeError: bad data or hyperparameters, before any compute.
            OSError: the checkpoint cannot be written, or holds a run and `resume` is not set.
            TrainingDivergedError: the objective became non-finite; the weights before that are
                kept and usable.
            KeyboardInterrupt: Ctrl-C; likewise.
        """
        again = self.warm_start and self.__sklearn_is_fitted__()
        return self._fit(again, X, X_val, condition, condition_val, sample_weight, watch)

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        X_val: Any = None,
        condition: Any = None,
        condition_val: Any = None,
        sample_weight: Any = None,
        **watch: Any,
    ) -> "OTFlow":
        """Go on for up to `max_iter` steps from the fitted weights; the first call is `fit`.

        Scalers and what columns are mapped by stay those of the first fit, so units do not move.
        Optimiser and learning-rate schedule start afresh; `history_`, `n_iter_` and `status_` are
        those of the last call. On its validation rows the result is never worse than the start.
        An integer `random_state` holds out the same rows of the same X again.

        Args:
            All as in `fit`; columns may be constant.

        Raises:
            ValueError: width, depth, scheme, n_steps, base, dtype, standardize, bounds, dequantize,
                arcsinh or target are no longer those of the first fit; and as `fit`.
        """
        again = self.__sklearn_is_fitted__()
        return self._fit(again, X, X_val, condition, condition_val, sample_weight, watch)

    def _fit(
        self,
        again: bool,
        X: Any,
        X_val: Any,
        condition: Any,
        condition_val: Any,
        sample_weight: Any,
        watch: dict[str, Any],
    ) -> "OTFlow":
        settings, watching = self._settings(), self._watch(watch)
        if isinstance(X, ShardedTable):
            others = (X_val, condition, condition_val, sample_weight)
            if again or any(value is not None for value in others):
                raise ValueError(
                    "X: expected a table in memory where there are validation rows, conditions, "
                    "weights or a fitted model to go on from; got a ShardedTable."
                )
            return self._fit_stream(X, settings, watching)
        names = names_of(condition)
        rows = read_rows(self, X, condition, sample_weight, fitting=not again)
        val = check_validation(self, rows, X_val, condition_val, names)
        target = settings.make_target(rows.x.shape[1])
        if again:
            self._check_continuation(target)
            columns = self.column_map_
        else:
            columns = self._column_map(rows.x)
        check_mapped(columns, self.columns_, X=rows, X_val=val)
        seed = self._seed(self.random_state)
        given = rows.x
        rows, val = divide(self, rows, val, seed, varying=not again)
        noise = np.random.default_rng([seed, 1])
        rows = rows.mapped(columns, noise)
        val = None if val is None else val.mapped(columns, noise)
        if again:
            scalers = self.standardizer_, self.condition_scaler_
        else:
            scalers = rows.scaler(self.standardize), rows.condition_scaler()
        with precision(self.dtype):
            z = rows.prepared(*scalers, self.dtype)
            z_val = None if val is None else val.prepared(*scalers, self.dtype)
            check_prepared(z, z_val, self.columns_, names, varying=not again)
            if not again:
                warn_of_quirks(given, self.columns_, columns)
            start = self.flow_ if again else None
            material = of_rows(z, z_val, settings, seed)
            fitted = self._train(settings, material, target, seed, watching, start)
            return self._keep(fitted, columns, *scalers, names)

    def _fit_stream(self, table: ShardedTable, settings: Settings, watch: Watch) -> "OTFlow":
        self._refuse("a ShardedTable", bounds=None, dequantize=None, arcsinh=None, natural_iter=0)
        target = settings.make_target(table.dim)
        seed = self._seed(self.random_state)
        self._know(table.dim, table.names)
        with precision(self.dtype):
            material, scaler = of_stream(table, settings, seed)
            fitted = self._train(settings, material, target, seed, watch)
            return self._keep(fitted, ColumnMap.identity(table.dim), scaler)

    def fit_density(self, density: AbstractTarget, **watch: Any) -> "OTFlow":
        """Train on a density that can be sampled and evaluated, in its own units.

        Natural-gradient steps draw fresh samples and use the log-density as a control variate,
        which takes the sampling noise out of the optimum: the way to reach J*_alpha. `warm_start`
        plays no part here.

        Args:
            density: rho0, an object of `otflow.targets`.
            watch: as in `fit`.

        Returns:
            self.

        Raises:
            As `fit`.
        """
        settings, watching = self._settings(), self._watch(watch)
        if not isinstance(density, AbstractTarget):
            raise TypeError(
                f"density: expected an object of otflow.targets; got {type(density).__name__}."
            )
        self._refuse("a density", bounds=None, dequantize=None, arcsinh=None)
        self._know(density.dim)
        target = settings.make_target(density.dim)
        seed = self._seed(self.random_state)
        with precision(self.dtype):
            material = of_density(density, settings, seed)
            scaler = Standardizer.identity(density.dim)
            fitted = self._train(settings, material, target, seed, watching)
            return self._keep(fitted, ColumnMap.identity(density.dim), scaler)
