"""Weights of the losses of several tasks, from the norms of their gradients; and controls to compare with."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from estimators import EMA, Estimator, Log, Trait
from estimators._parameters import NONNEGATIVE, POSITIVE, brief, one, require, whole
from estimators.shares import FLOORS, LEAST, RULES, simplex, split
from estimators.torch._norms import gradient_norms, stacked

Array = NDArray[np.float64]


class GradientStats(NamedTuple):
    """What a step's weights came from, float64 on the host, each (K,)."""

    norms: Tensor
    """Of the last gradients, NaN where one was missing."""
    raw: Tensor
    """Shares by the rule from these norms alone, NaN where one was missing."""
    smoothed: Tensor
    """Shares after the smoother; equal ones until the warm-up is over."""
    weights: Tensor
    """What the losses were weighed by: the smoothed shares with the floor."""


class Balancer(nn.Module):
    """Weights w of K losses, w >= 0 with sum 1, equal ones to start from.

    ``loss = balancer(losses, shared_parameters)`` is the sum of w_i loss_i, ready for ``backward``; weights
    are numbers and carry no gradient. What a balancer remembers is in its buffers, float64 (steps: int64) on
    the host, and stays so whatever the model is cast or moved to.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """What ``update`` is to be given: ``norms``, ``losses``."""
    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes under which a state is saved, and under which alone it is loaded."""
    steps: Tensor
    weights: Tensor

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = whole(type(self).__name__, "n_tasks", n_tasks, 2)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device="cpu"))
        self._keep("weights", np.full(self.n_tasks, 1.0 / self.n_tasks))

    def forward(
        self, losses: Iterable[Tensor], shared_parameters: Iterable[Tensor] | Tensor | nn.Module | None = None
    ) -> Tensor:
        """Weighted sum of K scalar losses; in training the weights are brought up to date first.

        Each call in training is a step, one of a micro-batch too; hooks on the parameters see each backward.
        shared_parameters: those that the tasks share, whose gradients are measured, by one further backward
        pass for each task and one wait for the device in all; frozen ones are left out, and a task may leave
        some unused, or all (its norm is then missing). The norms are of this process's losses and of these
        alone, so that losses scaled in common (mixed precision) give the same weights. Raises ValueError for
        other than K losses, or none to differentiate by, RuntimeError where gradients are switched off.
        """
        name, every = type(self).__name__, list(losses)
        require(name, "losses", len(every), len(every) == self.n_tasks, f"{self.n_tasks} of them")
        for loss in every:
            shape = tuple(getattr(loss, "shape", ("no tensor",)))
            require(name, "losses", shape, math.prod(shape) == 1 if shape else True, "scalar tensors")
        weights = (self._trained_on(every, shared_parameters) if self.training else self.weights).tolist()
        total: Tensor = every[0] * weights[0]
        for loss, weight in zip(every[1:], weights[1:], strict=True):
            total = total + loss * weight
        return total

    def _trained_on(self, every: list[Tensor], shared_parameters: Any) -> Tensor:
        """Weights after one more step of these losses."""
        measured: dict[str, Tensor] = {}
        if "norms" in self.needs:
            measured["norms"] = gradient_norms(every, () if shared_parameters is None else shared_parameters)
        if "losses" in self.needs:
            measured["losses"] = stacked([loss.detach().double().reshape(()) for loss in every])
        if measured:  # fetched together: each by itself would wait for the device
            fetched = torch.stack(list(measured.values())).cpu()
            measured = dict(zip(measured, fetched, strict=True))
        return self.update(**measured)

    def update(self, norms: Any = None, losses: Any = None) -> Tensor:
        """Weights (K,), float64 on the host, after one more step whose norms, or losses, are at hand.

        norms, losses: K numbers in any form, those that ``needs`` names; a norm that is 0 or not finite is
        missing. Raises ValueError for another number of them and for a norm below 0.
        """
        given = {"norms": norms, "losses": losses}
        values = {what: self._numbers(what, given[what]) for what in self.needs}
        if "norms" in values:
            norm = values["norms"]
            require(type(self).__name__, "norms", norm.tolist(), not np.any(norm < 0.0), ">= 0")
            values["norms"] = np.where((norm > 0.0) & np.isfinite(norm), norm, np.nan)
        self._put("weights", self._next(**values))
        self.steps += 1
        return self.weights.clone()

    @abstractmethod
    def _next(self, **values: Array) -> Array:
        """Weights of this step, from what it needs, missing norms being NaN."""

    def get_extra_state(self) -> dict[str, Any]:
        """Settings that a saved state belongs to, as plain data."""
        return {"balancer": type(self).__name__, "n_tasks": self.n_tasks} | {
            name: _plain(getattr(self, name)) for name in self.settings
        }

    def set_extra_state(self, state: Any) -> None:
        """Nothing: settings are given when a balancer is made, and checked before a state is loaded."""

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *others: Any, **more: Any
    ) -> None:
        saved, mine = state_dict.get(f"{prefix}_extra_state"), self.get_extra_state()
        if saved is not None and saved != mine:
            both = (
                {key: (saved.get(key), value) for key, value in mine.items()} if hasattr(saved, "get") else {}
            )
            differ = [
                f"{key}={_shown(old)}, not {_shown(new)}" for key, (old, new) in both.items() if old != new
            ]
            said = "; ".join(differ) or "other settings"
            raise ValueError(f"{type(self).__name__}: the state was saved under {said}")
        # Copied into the buffers here, never put in their place, so that they stay on the host.
        metadata = {**local_metadata, "assign_to_params_buffers": False}
        super()._load_from_state_dict(state_dict, prefix, metadata, *others, **more)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Leave the buffers as they are: cast they would forget, and on a device be waited for."""
        return self

    def extra_repr(self) -> str:
        """Settings, for print."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in ("n_tasks", *self.settings))

    def _keep(self, name: str, value: Any) -> None:
        """Make a buffer, float64 on the host."""
        self.register_buffer(name, torch.from_numpy(np.array(value, dtype=np.float64)))

    def _put(self, name: str, value: Any) -> None:
        getattr(self, name).numpy()[...] = value

    def _numbers(self, what: str, given: Any) -> Array:
        """K numbers as float64, whatever they come in."""
        name = type(self).__name__
        if isinstance(given, Tensor):
            given = given.detach().double().cpu().numpy()
        elif isinstance(given, Sequence) and any(isinstance(one, Tensor) for one in given):
            given = stacked([torch.as_tensor(one).detach().double() for one in given]).cpu().numpy()
        try:
            numbers = np.array(given, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.empty(0)
        require(name, what, given, numbers.shape == (self.n_tasks,), f"{self.n_tasks} numbers")
        return numbers


class GradientBalancer(Balancer):
    """Weights so that every task's gradient moves the shared parameters as far: smoothed, with a floor.

    The raw shares are 1/||g_i|| over their sum, g_i the gradient of loss i by the shared parameters;
    rule="sum_of_others", a control, has (S - ||g_i||) / ((K - 1) S), S the sum of the norms, the same for two
    tasks and not balanced for more. For the first ``warmup`` steps weights are 1/K, and the smoother sees
    nothing. Then it runs on the shares, from 1/K where it has a stated start (``initial``, a prior ``mean``),
    else from its first sample; with domain="log" on the logarithms of the norms, from which the shares then
    follow: a median of what varies by factors, where the mean of shares lies above it (Jensen).

    floor in [0, 1/K): with floor_mode="clip" the weights are max(w, floor) over their sum, so that what holds
    is floor / (1 + (K - 1) floor), not the floor; with "project" it holds: the nearest weights to it in
    relative entropy, those above the floor keeping their ratios. Where the floor binds the weights are
    constant and the smoother is of no account: for two tasks beyond a ratio of norms of (1 - floor) / floor,
    19 at 0.05.

    A norm that is 0 or not finite counts as missing: the task holds its share, the others split the rest. The
    smoother is any estimator of one setting for all tasks, or of K. Raises ValueError, one line. GABA's
    balancing as publicly described (inverse norms, EMA, floor, renormalisation); its text also prints the
    other rule.
    """

    needs = ("norms",)
    settings = ("smoother", "floor", "warmup", "rule", "domain", "floor_mode")
    norms: Tensor
    raw: Tensor
    smoothed: Tensor

    def __init__(
        self,
        n_tasks: int,
        smoother: Estimator | None = None,
        floor: float = 0.05,
        warmup: int = 100,
        *,
        rule: str = "inverse_norm",
        domain: str = "weight",
        floor_mode: str = "clip",
    ) -> None:
        super().__init__(n_tasks)
        name, count = type(self).__name__, self.n_tasks
        self.smoother = EMA(0.99) if smoother is None else smoother
        self.floor = one(name, "floor", floor, NONNEGATIVE)
        require(name, "floor", floor, self.floor < 1.0 / count, f"in [0, 1/{count})")
        self.warmup = whole(name, "warmup", warmup, 0)
        choices = {
            "rule": (rule, RULES),
            "domain": (domain, ("weight", "log")),
            "floor_mode": (floor_mode, FLOORS),
        }
        for field, (chosen, allowed) in choices.items():
            require(name, field, chosen, chosen in tuple(allowed), f"one of {', '.join(allowed)}")
        self.rule, self.domain, self.floor_mode = rule, domain, floor_mode
        runs = isinstance(self.smoother, Estimator) and not isinstance(self.smoother, type)
        require(name, "smoother", self.smoother, runs, "an estimator, such as EMA(0.99)")
        takes = domain == "weight" or Trait.POSITIVE not in self.smoother.traits
        require(name, "smoother", self.smoother, takes, 'one that takes all numbers where domain is "log"')
        # From a level of 0 the shares would begin too small, and of no balance.
        self._started = self.smoother if domain == "log" else _from_level(self.smoother, 1.0 / count)
        state = self._started.init(np.zeros(count))
        fits = np.shape(state.mean) == (count,)
        require(name, "smoother", self.smoother, fits, f"of one setting, or of {count} for the tasks")
        self._first = state
        for field, value in zip(state._fields, state, strict=True):
            self._keep(f"smoother_{field}", value)
        for field in ("norms", "raw"):
            self._keep(field, np.full(count, np.nan))
        self._keep("smoothed", np.full(count, 1.0 / count))

    def gradient_stats(self) -> GradientStats:
        """Norms, raw and smoothed shares, and weights, of the last step; copies."""
        return GradientStats(*(getattr(self, field).clone() for field in GradientStats._fields))

    def _next(self, **values: Array) -> Array:
        norms, equal = values["norms"], np.full(self.n_tasks, 1.0 / self.n_tasks)
        self._put("norms", norms)
        rule, smoothed = RULES[self.rule], self.smoothed.numpy()
        raw = split(norms, smoothed if self.domain == "weight" else equal, rule)
        self._put("raw", raw)
        if int(self.steps) < self.warmup:
            return equal
        if self.domain == "weight":
            mean = self._smooth(raw)
            smoothed[...] = simplex(np.where(np.isnan(mean), smoothed, mean))
        else:
            mean = self._smooth(np.log(norms))
            known = mean[~np.isnan(mean)]
            largest = known.max() if known.size else 0.0
            levels = np.exp(np.maximum(mean - largest, math.log(LEAST)))  # a NaN stays one
            shares = split(levels, equal, rule)
            smoothed[...] = simplex(np.where(np.isnan(shares), equal, shares))
        return FLOORS[self.floor_mode](smoothed, self.floor)

    def _smooth(self, samples: Array) -> Array:
        """Mean after one more sample of each task."""
        fields = [f"smoother_{field}" for field in self._first._fields]
        state = type(self._first)(*(getattr(self, field).numpy() for field in fields))
        state = self._started.update(state, samples)
        for field, value in zip(fields, state, strict=True):
            self._put(field, value)
        return np.array(state.mean, dtype=np.float64)


class GradNorm(Balancer):
    """A control that learns weights by which tasks train at like rates: Chen et al. (2018), arXiv 1711.02257.

    It minimises the sum of |w_i n_i - G r_i^alpha|, n_i the norm of the gradient of loss i, G the mean of
    w_i n_i and r_i = (L_i / L_i(0)) over its mean, the target a constant (their equation 2); alpha >= 0, at 0
    the inverse norms. As in common versions of it the weights are a softmax, so that they stay on the
    simplex (here with sum 1, there K), and the step is Adam's, here of the sum over G, so that no unit
    matters: lr > 0 is how far a logit moves at most, about. A step with a norm or a loss that is missing
    changes nothing; the losses of the first other one are L(0). Raises ValueError.
    """

    needs = ("norms", "losses")
    settings = ("alpha", "lr")
    logits: Tensor
    first_moment: Tensor
    second_moment: Tensor
    initial_losses: Tensor
    learned: Tensor

    def __init__(self, n_tasks: int, alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(n_tasks)
        name = type(self).__name__
        self.alpha = one(name, "alpha", alpha, NONNEGATIVE)
        self.lr = one(name, "lr", lr, POSITIVE)
        for field in ("logits", "first_moment", "second_moment"):
            self._keep(field, np.zeros(self.n_tasks))
        self._keep("initial_losses", np.full(self.n_tasks, np.nan))
        self._keep("learned", 0.0)

    def _next(self, **values: Array) -> Array:
        norms, losses, weights = values["norms"], values["losses"], self.weights.numpy().copy()
        if not np.all(np.isfinite(norms) & np.isfinite(losses) & (losses > 0.0)):
            return weights
        initial = self.initial_losses.numpy()
        initial[...] = np.where(np.isnan(initial), losses, initial)
        with np.errstate(all="ignore"):
            relative = weights * (norms / norms.max())
            rate = losses / initial
            target = relative.mean() * (rate / rate.mean()) ** self.alpha
            slope = np.sign(relative - target) * relative / relative.mean()
        if not np.all(np.isfinite(slope)):
            return weights
        gradient = slope - weights * slope.sum()  # by the logits, through the softmax
        self.learned += 1.0
        count = float(self.learned)
        logits, first, second = (
            getattr(self, f).numpy() for f in ("logits", "first_moment", "second_moment")
        )
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        logits -= self.lr * (first / (1.0 - 0.9**count)) / (np.sqrt(second / (1.0 - 0.999**count)) + 1e-8)
        return _softmax(logits)


class RandomWeights(Balancer):
    """A control that any balancing must beat: a softmax of standard normals at every step.

    The draws of a step follow from seed (int >= 0) and step alone. Lin et al. (2022), arXiv 2111.10603.
    Raises ValueError.
    """

    settings = ("seed",)

    def __init__(self, n_tasks: int, seed: int = 0) -> None:
        super().__init__(n_tasks)
        self.seed = whole(type(self).__name__, "seed", seed, 0)

    def _next(self, **values: Array) -> Array:
        return _softmax(np.random.default_rng([self.seed, int(self.steps)]).standard_normal(self.n_tasks))


class EqualWeights(Balancer):
    """The control that does nothing: 1/K."""

    def _next(self, **values: Array) -> Array:
        return np.full(self.n_tasks, 1.0 / self.n_tasks)


def _softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max())
    shares: Array = raised / raised.sum()
    return shares


def _from_level(estimator: Any, level: float) -> Any:
    """The same estimator, a stated start (initial, mean) put at a level; another one as it is."""
    if isinstance(estimator, Log):
        return dataclasses.replace(estimator, estimator=_from_level(estimator.estimator, math.log(level)))
    fields = (
        {field.name for field in dataclasses.fields(estimator)} if dataclasses.is_dataclass(estimator) else ()
    )
    stated = {
        name: level for name in ("initial", "mean") if name in fields and getattr(estimator, name) is not None
    }
    return dataclasses.replace(estimator, **stated) if stated else estimator


def _plain(setting: Any) -> Any:
    """A setting as plain data; an estimator by its kind and parameters."""
    if not isinstance(setting, Estimator):
        return setting
    saved = setting.to_dict(setting.init(None))
    return {key: value for key, value in saved.items() if key != "state"}


def _shown(setting: Any) -> str:
    if not (isinstance(setting, dict) and "estimator" in setting):
        return brief(setting)
    parameters = setting.get("parameters") or {}
    inside = ", ".join(f"{name}={_shown(value)}" for name, value in parameters.items())
    return f"{setting['estimator']}({inside})"
