"""Reports of gains: the same from a watch on any optimiser as from the moments that steer themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from estimators import Kalman, KalmanBank

torch = pytest.importorskip("torch")

from estimators.torch import FilteredAdam, PerTensor, gain_report, suggest_betas, watch_gains  # noqa: E402


def trained(make: Any, watched: bool, steps: int = 60) -> tuple[Any, Any]:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    optimiser = make(model.parameters())
    if watched:
        watch_gains(optimiser)
    for _ in range(steps):
        x = torch.randn(8, 6)
        optimiser.zero_grad()
        (model(x) - x[:, :2]).square().mean().backward()
        optimiser.step()
    return optimiser, model


def test_a_watch_sees_what_a_steered_moment_sees() -> None:
    def steered(parameters: Any) -> Any:
        return FilteredAdam(parameters, first=PerTensor(KalmanBank()))

    own, watch = (gain_report(*trained(steered, watched)) for watched in (False, True))
    assert list(own.index) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert own.equals(watch)
    assert list(own["coordinates"]) == [48, 8, 16, 2]
    np.testing.assert_allclose(own["beta"], 1.0 - own["gain"], rtol=1e-15)
    np.testing.assert_allclose(own["signal_to_noise"], own["gain"] ** 2 / own["beta"], rtol=1e-12)


def test_torchs_own_optimisers_can_be_watched_and_left_alone_again() -> None:
    plain, model = trained(lambda p: torch.optim.SGD(p, lr=0.01), watched=False)
    with pytest.raises(ValueError, match=r"^gain_report: no gradient was seen; call watch_gains"):
        gain_report(plain)
    handle = watch_gains(plain)
    model(torch.ones(1, 6)).sum().backward()
    plain.step()
    before = gain_report(plain)
    handle.remove()
    plain.step()
    assert gain_report(plain).equals(before)
    assert before.index[0] == "tensor 0"
    watched = trained(lambda p: torch.optim.SGD(p, lr=0.01), watched=True)[1].state_dict()
    unwatched = trained(lambda p: torch.optim.SGD(p, lr=0.01), watched=False)[1].state_dict()
    assert all(torch.equal(watched[key], unwatched[key]) for key in watched)


def test_the_gain_follows_the_noise() -> None:
    """Gradients of a walk of known q/r, in a tensor each: the report finds the gain of the filter for it."""
    rng, gains = np.random.default_rng(2), []
    parameters = [torch.nn.Parameter(torch.zeros(400)) for _ in range(3)]
    optimiser = torch.optim.SGD(parameters, lr=0.0)
    watch_gains(optimiser)
    levels = np.zeros((3, 400))
    ratios = np.array([1e-3, 1e-2, 1e-1])
    for _ in range(800):
        levels += np.sqrt(ratios)[:, np.newaxis] * rng.standard_normal(levels.shape)
        for parameter, level in zip(parameters, levels, strict=True):
            parameter.grad = torch.from_numpy(level + rng.standard_normal(400)).float()
        optimiser.step()
    gains = gain_report(optimiser)["gain"].to_numpy()
    wanted = 2.0 / (1.0 + np.sqrt(1.0 + 4.0 / ratios))
    np.testing.assert_allclose(gains, wanted, rtol=0.4)
    betas = suggest_betas(optimiser, largest=0.95)
    np.testing.assert_allclose(betas.by_tensor, np.minimum(1.0 - gains, 0.95))
    assert betas.overall == pytest.approx(min(1.0 - gains.mean(), 0.95))
    with pytest.raises(ValueError, match=r"^suggest_betas: largest=1.0 is not valid; .* in \(0, 1\)$"):
        suggest_betas(optimiser, largest=1.0)


def test_another_watch_ends_the_first_and_takes_an_estimator() -> None:
    parameter = torch.nn.Parameter(torch.zeros(40))
    optimiser = torch.optim.SGD([parameter], lr=0.0)
    watch_gains(optimiser)
    watch_gains(optimiser, Kalman(q=0.01, r=1.0))
    assert len(optimiser._optimizer_step_pre_hooks) == 1
    parameter.grad = torch.ones(40)
    for _ in range(200):
        optimiser.step()
    assert gain_report(optimiser)["gain"].item() == pytest.approx(Kalman(q=0.01, r=1.0).steady_gain)


def test_gradients_that_are_none_or_not_finite_are_missing() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(5)) for _ in range(2)]
    optimiser = torch.optim.SGD(parameters, lr=0.0)
    watch_gains(optimiser)
    parameters[0].grad = torch.ones(5)
    optimiser.step()
    assert len(gain_report(optimiser)) == 1
    parameters[0].grad = torch.full((5,), torch.nan)
    optimiser.step()
    assert np.isfinite(gain_report(optimiser)["gain"]).all()
