"""Memories of tokens: traces and gates against loops, decoding against precision, what is learned."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="the predictors need the extra 'training': scikit-learn is absent")

from estimators import EMA
from experiments import recall_memories
from experiments.recall_memories import FORMATS, GAINS, decoded, noisy, tokens_recovered, traces
from experiments.recorder import MissingExtraError


def test_traces_are_weighted_sums_of_the_samples() -> None:
    x = np.random.default_rng(0).normal(size=(7, recall_memories.AT_ONCE + 3, 2))
    age = np.arange(7)[::-1]
    weights = np.array([gain * (1.0 - gain) ** age for gain in GAINS])
    np.testing.assert_allclose(traces(x), np.einsum("kt,tnd->ndk", weights, x), rtol=0, atol=1e-13)


def test_a_gate_is_the_gain_of_its_step() -> None:
    rng = np.random.default_rng(1)
    x, gains = (
        rng.normal(size=(20, recall_memories.AT_ONCE + 1, 3)),
        rng.uniform(size=(20, recall_memories.AT_ONCE + 1)),
    )
    gains[rng.uniform(size=gains.shape) < 0.3] = 0.0
    mean = np.zeros(x.shape[1:])
    for sample, gain in zip(x, gains, strict=True):
        mean += gain[:, np.newaxis] * (sample - mean)
    found = traces(x, gains / (1.0 - gains), EMA(0.5))
    np.testing.assert_allclose(found[..., 0], mean, rtol=0, atol=1e-13)


def test_odds_of_one_change_nothing_and_of_zero_write_nothing() -> None:
    x = np.random.default_rng(2).normal(size=(9, 4, 2))
    np.testing.assert_allclose(traces(x, np.ones((9, 4))), traces(x), rtol=0, atol=1e-14)
    assert not traces(x, np.zeros((9, 4))).any()


def test_noise_is_in_units_of_the_feature_itself() -> None:
    rng = np.random.default_rng(3)
    state = rng.normal(5.0, [[1e-3, 1.0, 1e3, 0.0]], size=(4000, 4)).reshape(4000, 2, 2)
    clean = noisy(state, 0.0, rng, 1000)
    np.testing.assert_allclose(clean[:1000].mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(clean[:1000].std(axis=0), [1.0, 1.0, 1.0, 0.0], atol=1e-9)
    error = noisy(state, 0.2, rng, 1000) - clean
    np.testing.assert_allclose(error.std(axis=0), 0.2, rtol=0.06)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.sampled_from([0.5, 0.55, 0.6, 0.7]),
)
def test_a_trace_of_gain_one_half_or_more_is_decoded_as_far_as_precision_goes(
    tokens: list[int], gain: float
) -> None:
    x = np.eye(5)[tokens][:, np.newaxis]
    count = min(len(tokens), int(53 * np.log(2) / -np.log(1.0 - gain)) - 4)
    found = decoded(traces(x, ema=EMA(1.0 - gain))[..., 0], gain, count)
    assert found[:, 0].tolist() == tokens[::-1][:count]


@pytest.mark.parametrize("gain", [0.5, 0.6])
def test_precision_bounds_how_many_tokens_are_recovered(gain: float) -> None:
    """A token of age k weighs (1 - gain)^k of the newest: it is lost where that is below the last bit."""
    found = {kept_as: tokens_recovered(gain, kept_as, 0, 0) for kept_as in FORMATS}
    for kept_as, bits in FORMATS.items():
        lasting = bits * np.log(2.0) / -np.log(1.0 - gain)
        assert found[kept_as].min() >= lasting - 4.0
        assert lasting - 1.0 <= found[kept_as].mean() <= lasting + 6.0
    assert (found["float64"] > found["float32"]).all()
    assert (found["float32"] > found["float16"]).all()


def test_below_one_half_the_decoder_errs_whatever_the_precision() -> None:
    assert tokens_recovered(0.4, "float64", 0, 0).min() == 0.0
    x = np.eye(2)[[1, 1, 1, 0]][:, np.newaxis]  # 0.4 of the newest token, more of the one before
    assert decoded(traces(x, ema=EMA(0.6))[..., 0], 0.4, 1)[0, 0] == 1


@pytest.mark.parametrize("name", [recall_memories.LINEAR, *recall_memories.STRONGER])
def test_predictors_state_chances_and_are_the_same_again(name: str) -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(3, size=800)
    features = np.eye(4)[labels] + 0.3 * rng.normal(size=(800, 4))
    stated = []
    with recall_memories.single_threaded():
        for _ in range(2):
            model = recall_memories.fitted(name, features[:600], labels[:600], seed=5)
            stated.append(recall_memories.chances(model, features[600:], 4))
        accuracy = recall_memories.accuracy(name, features, labels, 600, seed=5)
    np.testing.assert_array_equal(*stated)
    np.testing.assert_allclose(stated[0].sum(axis=1), 1.0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stated[0].min(axis=0)[3], recall_memories.MIXED_IN / 4)  # a class never seen
    assert stated[0].min() >= recall_memories.MIXED_IN / 4 * (1.0 - 1e-9)
    assert accuracy == np.mean(stated[0].argmax(axis=1) == labels[600:]) > 0.9


def test_a_gate_learns_to_write_after_the_marker_alone() -> None:
    pytest.importorskip("torch")
    from experiments.recall_tasks import MARKER, PAYLOADS, payloads

    rng = np.random.default_rng(5)
    tokens, wanted = payloads(1500, 0, 32, rng)
    with recall_memories.single_threaded():
        gains = recall_memories.learned_gate(tokens, wanted, PAYLOADS + 1, rng)
    assert gains[MARKER] > 0.98
    assert gains[:MARKER].max() < 0.02


def test_a_gru_reads_what_its_labels_ask_for() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4, 2000, 3))
    labels = (x[2, :, 1] > 0.0).astype(np.int64)
    before = torch.random.get_rng_state()
    with recall_memories.single_threaded():
        first, again = (
            recall_memories.gru_accuracy(x, labels, 1500, np.random.default_rng(7)) for _ in range(2)
        )
    assert first == again > 0.75
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("failure", [ImportError("libtorch"), OSError("libcudart"), RuntimeError("twice")])
def test_a_package_that_is_broken_counts_as_absent(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        (tmp_path / "torch.py").write_text(f"raise {failure!r}")
        broken.syspath_prepend(tmp_path)
        broken.delitem(sys.modules, "torch", raising=False)
        assert not recall_memories.has_torch()
        assert recall_memories.available(["torch", "numpy"]) == "numpy"
        with recall_memories.single_threaded():
            assert tokens_recovered(0.5, "float16", 0, 0).min() > 0.0
        with pytest.raises(MissingExtraError, match=r"^recall needs torch and scikit-learn \(torch cannot"):
            recall_memories.require_extra(needs_torch=True)


@pytest.mark.parametrize(
    ("absent", "needs_torch", "named"),
    [("sklearn.linear_model", False, "scikit-learn"), ("torch", True, "torch and scikit-learn")],
)
def test_an_absent_extra_is_named(
    absent: str, needs_torch: bool, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(
        MissingExtraError, match=rf"^recall needs {named} \(.*\): pip install 'kalmean\[training\]'$"
    ):
        recall_memories.require_extra(needs_torch)
    if needs_torch:
        recall_memories.require_extra()
        assert not recall_memories.has_torch()
