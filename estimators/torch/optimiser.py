"""FilteredAdam: AdamW whose two moments are any estimators."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from estimators._parameters import NONNEGATIVE, one, require
from estimators._saving import setting
from estimators.ema import DebiasedEMA
from estimators.protocol import Trait
from estimators.torch._descent import MOMENTS, SHARED, TRUSTS, One, Settings, descend, split
from estimators.torch._moments import ON_HOST


class FilteredAdam(Optimizer):
    """AdamW whose moments are estimators: p -= lr (first / (sqrt(second) + eps) + weight_decay p).

    first: an estimator of the gradient, None for the gradient itself; second: one of its square, None for no
    division. Each sees the coordinates of a tensor as channels; what these share (the weight of DebiasedEMA,
    the variance of Kalman) is one number of the tensor, a float64. lr, eps, weight_decay: >= 0.

    trust="layer" makes each tensor's step as long as its weights, times lr (LAMB: You et al. 2020, arXiv
    1904.00962); "discounted" does not count what of the step's length is uncertain, the share variance /
    (mean^2 + variance) of each coordinate, and takes a first that states a variance. cautious: coordinates
    whose step would climb the present gradient rest (Liang et al. 2024, arXiv 2411.16085). extrapolation:
    gradients are taken so many steps ahead, where the parameters are until ``eval`` (single-gradient DiSK:
    2410.03883; implicit gradient transport: Arnold et al. 2019, arXiv 1906.03532). maximize: climb.

    A tensor whose gradient is None or not finite is skipped whole: time passes for its moments, it neither
    moves nor decays. A sparse gradient is the dense one that it stands for. Moments of half-precision tensors
    are kept in single precision. Every setting may differ between groups; a bad one raises ValueError or
    TypeError. The defaults are AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        first: Any = DebiasedEMA(0.9),  # noqa: B008 (immutable)
        second: Any = DebiasedEMA(0.999),  # noqa: B008
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        trust: str | None = None,
        cautious: bool = False,
        extrapolation: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "first": first,
            "second": second,
            "eps": eps,
            "weight_decay": weight_decay,
            "trust": trust,
            "cautious": cautious,
            "extrapolation": extrapolation,
            "maximize": maximize,
            "ahead": True,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add tensors, with settings of their own where they are named; raises as the class does."""
        group, name = {**self.defaults, **param_group}, type(self).__name__
        for field in ("lr", "eps", "weight_decay", "extrapolation"):
            given = group[field].item() if isinstance(group[field], Tensor) else group[field]
            one(name, field, given, NONNEGATIVE)
        trust, first = group["trust"], group["first"]
        require(name, "trust", trust, trust is None or trust in TRUSTS, f"None or of {', '.join(TRUSTS)}")
        Settings.of(name, group)
        states = Trait.HAS_VARIANCE in getattr(first, "traits", ())
        require(name, "first", first, states or trust != "discounted", "one with a variance to be discounted")
        super().add_param_group(param_group)
        others = {p.dtype for p in self.param_groups[-1]["params"] if not p.dtype.is_floating_point}
        if others:
            self.param_groups.pop()
        require(name, "params", others, not others, "tensors of floating-point numbers")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; closure evaluates the model with gradients and returns its loss, as this does then."""
        loss = None
        if closure is not None:
            self.train()
            with torch.enable_grad():
                loss = closure()
        alike: dict[Any, tuple[Settings, list[One]]] = {}
        for group in self.param_groups:
            if not group["ahead"]:
                raise RuntimeError(
                    "FilteredAdam: step after eval(); call train() before the gradient is taken"
                )
            key = tuple(id(group[name]) if name in MOMENTS else group[name] for name in SHARED)
            if key not in alike:
                alike[key] = Settings.of(type(self).__name__, group), []
            settings, tensors = alike[key]
            lr, decay = float(group["lr"]), float(group["weight_decay"])
            for parameter in group["params"]:
                kept = self.state[parameter]
                if not kept:
                    kept.update(settings.fresh())
                gradient = parameter.grad
                if gradient is not None and group["maximize"]:
                    gradient = -gradient
                tensors.append(One(parameter, gradient, kept, lr, decay))
        with np.errstate(all="ignore"):
            for settings, tensors in alike.values():
                for of_one_kind in split(tensors, settings):
                    descend(of_one_kind, settings)
        return loss

    def train(self) -> None:
        """Bring parameters to where the next gradient is taken: ahead, where there is an extrapolation."""
        self._bring(ahead=True)

    def eval(self) -> None:
        """Bring parameters to where the steps have led them."""
        self._bring(ahead=False)

    @torch.no_grad()
    def _bring(self, ahead: bool) -> None:
        for group in self.param_groups:
            far = float(group["extrapolation"]) * (ahead - group["ahead"])
            group["ahead"] = ahead
            for parameter in group["params"] if far else ():
                if "move" in self.state[parameter]:
                    parameter.add_(self.state[parameter]["move"], alpha=far)

    def state_dict(self) -> dict[str, Any]:
        """Numbers, text and tensors alone, which ``torch.load`` reads with ``weights_only=True``."""
        data: dict[str, Any] = super().state_dict()
        groups = [{**group, **_named(group)} for group in data["param_groups"]]
        return {**data, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict`` bit for bit; ValueError where its moments are of other estimators."""
        groups = []
        for own, saved in itertools.zip_longest(self.param_groups, state_dict["param_groups"]):
            if own is None or saved is None:
                groups = list(state_dict["param_groups"])  # which the base class will refuse
                break
            for where, mine in _named(own).items():
                if saved.get(where) != mine:
                    theirs = saved.get(where)
                    raise ValueError(f"FilteredAdam: the state was saved under {where}={theirs}, not {mine}")
            groups.append({**saved, **{where: own[where] for where in MOMENTS}})
        super().load_state_dict({**state_dict, "param_groups": groups})
        pairs = zip(
            itertools.chain.from_iterable(group["params"] for group in groups),
            itertools.chain.from_iterable(group["params"] for group in self.param_groups),
            strict=True,
        )
        for place, parameter in pairs:
            for key, value in state_dict["state"].get(place, {}).items():
                if isinstance(value, Tensor):  # the base class gave it the parameter's dtype
                    own = value.detach().to("cpu" if ON_HOST in key else parameter.device, copy=True)
                    if own.shape == parameter.shape and ON_HOST not in key:  # and lies as the parameter does
                        own = torch.empty_like(parameter, dtype=own.dtype).copy_(own)
                    self.state[parameter][key] = own


def _named(group: Mapping[str, Any]) -> dict[str, Any]:
    """The moments of a group as plain data."""
    return {where: None if group[where] is None else setting(group[where]) for where in MOMENTS}
