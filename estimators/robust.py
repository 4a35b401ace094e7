"""The random-walk filter for noise with outliers: the further off a sample lies, the less it weighs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._arithmetic import sqrt, toward, where
from estimators._parameters import POSITIVE, Parameter, Range, fit_together, real, require
from estimators._random_walk import RandomWalk
from estimators.protocol import Trait

if TYPE_CHECKING:
    from numpy.typing import NDArray

_THRESHOLD = Range("> 0 in standard deviations, or inf for none", lambda v: v > 0)


class RobustState(NamedTuple):
    """Mean of the level, NaN while nothing is known, and the variance of its error, then infinite."""

    mean: Any
    variance: Any


def standardised(given: Any, variance: Any, innovation: Any) -> tuple[Any, Any]:
    """Innovation in standard deviations, and the noise's share r / S of its variance S; one division."""
    precision = 1.0 / (variance + given.r)
    return innovation * sqrt(precision), given.r * precision


def weighed(given: Any, variance: Any, innovation: Any, size: Any, noise_share: Any) -> tuple[Any, Any]:
    """Gain and variance after a sample, from the level's finite variance and what ``standardised`` gives.

    Both losses are computed and one is taken: a branch would keep the compiled loops from using vectors.
    """
    noise = where(
        given.freedom < math.inf,
        student_noise(given, variance, innovation, noise_share),
        huber_noise(given, abs(size)),
    )
    gain = variance / (variance + noise)
    # Where the noise is beyond all numbers its product with the gain is not; nothing has been learnt then.
    return gain, where(gain > 1e-290, noise * gain, variance)


def huber_noise(given: Any, size: Any) -> Any:
    """r / w for the weight w = min(1, threshold / size)."""
    raised = given.r * given.steepness * size
    return where(raised > given.r, raised, given.r)


def student_noise(given: Any, variance: Any, innovation: Any, noise_share: Any) -> Any:
    """r / lambda after three rounds, from lambda = 1 on; infinite where a square is beyond all numbers."""
    noise = expected_noise(given, variance, innovation, noise_share)
    noise = expected_noise(given, variance, innovation, noise / (variance + noise))
    noise = expected_noise(given, variance, innovation, noise / (variance + noise))
    return where(noise < math.inf, noise, math.inf)


def expected_noise(given: Any, variance: Any, innovation: Any, noise_share: Any) -> Any:
    """r / lambda, lambda = (dof + 1) / (dof + (e^2 + P) / r), e and P the error and variance after it."""
    error = innovation * noise_share
    total = given.freedom * given.r + error * error + variance * noise_share
    return total * (1.0 / (given.freedom + 1.0))


@dataclass(frozen=True, eq=False)
class RobustKalman(RandomWalk):
    """Kalman filter of a random walk of process variance q, seen with noise r of which some are outliers.

    loss: "huber" gives a sample whose innovation is beyond ``threshold`` standard deviations the weight
    w = threshold / size, hence the noise variance r / w, and so a bounded pull; "student_t" takes the noise
    for Student's t with ``dof`` degrees of freedom and scale sqrt(r), so that far outliers do not pull at
    all. q, r, mean and variance as in Kalman, threshold > 0 (inf: Kalman itself), dof > 0; numbers or arrays
    by channel, loss one for all. Raises ValueError outside these. Innovation variance and likelihood are
    those of the Gaussian core, variance + q + r.

    At q/r = 0.01, settled: on Gaussian noise the squared error rises by 2.4 % (threshold 1.345: 4 %;
    Student's t: 6 %); where 5 % of the samples have 10 times the standard deviation it falls to a third of
    Kalman's.
    It fails the opposite way: a shift of the level, or an outlier that a diffuse start rests on, leaves all
    later samples as outliers, for hundreds of them at small q/r. ResettingKalman is for both.

    Huber (1964), Ann. Math. Statist. 35; in a filter Masreliez (1975), IEEE Trans. Autom. Control 20, and
    Cipra and Romera (1991), Kybernetika 27. Student's t: Agamennoni, Nieto, Nebot (2012), IEEE Trans. Signal
    Process. 60, in three rounds: more change the squared error by 0.1 % at q/r <= 0.1, and 1 % at 1.
    """

    loss: str = "huber"
    threshold: Parameter = 1.5
    dof: Parameter = 4.0

    State: ClassVar[Any] = RobustState
    losses: ClassVar[tuple[str, ...]] = ("huber", "student_t")
    """Values that ``loss`` may take."""
    coefficients: ClassVar[tuple[str, ...]] = ("q", "r", "steepness", "freedom")
    changes: ClassVar[tuple[str, ...]] = ("steps", "weight", "r")
    memory = "q"

    def __post_init__(self) -> None:
        super().__post_init__()
        name, known = type(self).__name__, isinstance(self.loss, str) and self.loss in self.losses
        require(name, "loss", self.loss, known, f"one of {', '.join(map(repr, self.losses))}")
        threshold = real(name, "threshold", self.threshold, _THRESHOLD)
        dof = real(name, "dof", self.dof, POSITIVE.of("degrees of freedom"))
        self._fit(threshold=threshold, dof=dof)

    def _fit(self, **more: Parameter) -> None:
        """Set further parameters, whose shapes must broadcast with those of the random walk."""
        walk = {field: getattr(self, field) for field in ("q", "r", "mean", "variance")}
        fit_together(type(self).__name__, **walk, **more)
        for field, value in more.items():
            object.__setattr__(self, field, value)

    @property
    def steepness(self) -> Parameter:
        """1 / threshold: how fast the noise grows with the size of an innovation; 0 without Huber's loss."""
        return 1.0 / self.threshold if self.loss == "huber" else 0.0

    @property
    def freedom(self) -> Parameter:
        """Degrees of freedom of the noise, infinite without Student's loss."""
        return self.dof if self.loss == "student_t" else math.inf

    @staticmethod
    def predict(given: Any, state: Any) -> Any:
        """The level may have moved: variance + q."""
        return RobustState(state.mean, state.variance + given.q)

    @staticmethod
    def correct(given: Any, state: Any, sample: Any) -> tuple[Any, Any]:
        """Kalman's, with the noise variance that the size of the innovation tells; 1 for an infinite P."""
        known = state.variance < math.inf
        innovation = where(known, sample - state.mean, 0.0)
        size, noise_share = standardised(given, state.variance, innovation)
        gain, variance = weighed(given, state.variance, innovation, size, noise_share)
        gain = where(known, gain, 1.0)
        return RobustState(toward(state.mean, sample, gain), where(known, variance, given.r)), gain

    @property
    def traits(self) -> frozenset[Trait]:
        """With a variance, shift equivariant without a proper prior; linear where no weight can change."""
        traits, linear = {Trait.HAS_VARIANCE} | self._equivariance, bool(np.all(self._weighs_alike))
        return frozenset(traits | {Trait.LINEAR} if linear else traits - {Trait.SCALE_EQUIVARIANT})

    @property
    def _weighs_alike(self) -> NDArray[np.bool_]:
        """Whether no sample of a channel can weigh less than another that came at its place."""
        robust = (np.asarray(self.steepness) > 0) | (np.asarray(self.freedom) < math.inf)
        certain = (np.asarray(self.q) == 0) & (np.asarray(self.variance) == 0)
        alike: NDArray[np.bool_] = ~robust | (np.asarray(self.r) == 0) | certain
        return alike

    def _prior(self) -> Any:
        return RobustState(*self._start_of_level)
