"""Verdicts follow from the numbers: digits, intervals, every row against a formula of its own, bad tables."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import signal

from experiments import claims
from experiments.claims import Parameters
from experiments.claims_quantities import QUANTITIES, quantity_of
from experiments.claims_stated import COLUMNS, Claim, Figure, Verdict, claims_of
from experiments.recall_memories import importable
from experiments.recorder import MissingExtraError

GOOD = (Verdict.CORRECT, Verdict.TO_DIGITS)
SHIPPED = list(csv.DictReader(io.StringIO(claims.SHIPPED.read_text(encoding="utf-8"))))
GAPS, SHARES = (0.90, 0.92, 0.91), (0.97, 0.95, 0.96)
OTHER_GAPS = (0.5, 0.5, 0.5)


@pytest.fixture
def recall(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the experiment of that name, which trains: a number for each seed."""
    told = SimpleNamespace(gaps=list(GAPS), shares=list(SHARES), seeds=[], fails=None)

    def one(*values: list[float]) -> Callable[..., np.ndarray]:
        def call(seeds: int = 3, root_seed: int = 0) -> np.ndarray:
            if told.fails:
                raise told.fails
            told.seeds.append((seeds, root_seed))
            found = np.array(values)[:, :seeds]
            return found if len(found) > 1 else found[0]

        return call

    module, other = ModuleType("experiments.recall"), list(OTHER_GAPS)
    module.gap_closed = one(other, told.gaps, other)  # type: ignore[attr-defined]
    module.structure_share = one(told.shares)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "experiments.recall", module)
    return told


def run(path: Path | None = None, seeds: int = 3, root_seed: int = 0) -> Any:
    setup = SimpleNamespace(
        parameters=Parameters(None if path is None else str(path)),
        seeds=seeds,
        root_seed=root_seed,
        check_untuned=lambda _: None,
    )
    return claims.run(setup)  # type: ignore[arg-type]


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(quantity: str, parameters: str, stated: str, unit: str, name: str = "a") -> dict[str, str]:
    return dict(zip(COLUMNS, (name, "a book", quantity, parameters, stated, unit), strict=True))


def of(outcome: Any, name: str) -> Any:
    return outcome.summary.set_index("id").loc[name]


# --- the rule -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(number=st.floats(1e-6, 1e6), digits=st.integers(1, 8), sign=st.sampled_from([-1.0, 1.0]))
def test_a_rounded_number_is_right_and_one_unit_off_is_wrong(number: float, digits: int, sign: float) -> None:
    value, text = sign * number, f"{sign * number:.{digits - 1}e}"
    assert Figure.of(text).verdict(value) in GOOD
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent) - digits + 1)
    assume(abs(abs(value - float(text)) - 0.5 * unit) > 1e-6 * unit)  # halfway, either digit is right
    for other in (float(mantissa) + 10.0 ** (1 - digits), float(mantissa) - 10.0 ** (1 - digits)):
        shown = f"{other:.{digits - 1}f}"
        assume(float(shown) != 0.0)
        assert Figure.of(f"{shown}e{exponent}").verdict(value) is Verdict.WRONG


@settings(deadline=None)
@given(number=st.floats(-1e4, 1e4), decimals=st.integers(1, 6))
def test_decimals_count_zeros_among_them(number: float, decimals: int) -> None:
    text = f"{number:.{decimals}f}"
    assert Figure.of(text).half == pytest.approx(0.5 * 10.0**-decimals)
    assert Figure.of(text).verdict(number) in GOOD
    exact = Figure.of(text).verdict(float(text))
    assert exact is Verdict.CORRECT


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2", 1.5, 2.5),
        ("10", 9.5, 10.5),
        ("63", 62.5, 63.5),
        ("100", 95, 105),
        ("300", 295, 305),
        ("630", 625, 635),
        ("1000", 950, 1050),
        ("1200", 1150, 1250),
        ("-16", -16.5, -15.5),
        ("1.6e-4", 1.55e-4, 1.65e-4),
        ("2e3", 1500, 2500),
        ("100.", 99.5, 100.5),
        ("100.0", 99.95, 100.05),
        ("0.00", -0.005, 0.005),
    ],
)
def test_which_digits_a_text_gives(text: str, low: float, high: float) -> None:
    figure, apart = Figure.of(text), 1e-5 * (high - low)
    assert figure.verdict(figure.value) is Verdict.CORRECT
    for inside in (low, low + apart, high - apart, high):
        assert figure.verdict(inside) is Verdict.TO_DIGITS
        assert figure.verdict_within(inside, inside) is figure.verdict(inside)
    for outside in (low - apart, high + apart, np.nan, np.inf):
        assert figure.verdict(outside) is Verdict.WRONG


def test_a_plain_zero_is_exact() -> None:
    assert Figure.of("0").verdict(1e-12) is Verdict.CORRECT
    assert Figure.of("0").verdict(1e-6) is Verdict.WRONG
    assert Figure.of("1").verdict(1.0 + 1e-10) is Verdict.CORRECT
    assert Figure.of("1").verdict(1.0 + 1e-8) is Verdict.TO_DIGITS


@pytest.mark.parametrize("text", ["", "high", "nan", "inf", "1_0", "1,5", "0.5 s", "e3", ".", "\u0663"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"^stated=.* is not valid; it must be a number"):
        Figure.of(text)


@pytest.mark.parametrize(
    "text", ["1e400", "-1e400", "1e99999999999999999999", "0e99999999999999999999", "1e-400", "0e400"]
)
def test_numbers_that_float64_has_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"^stated=.* is not valid; it must be finite in float64"):
        Figure.of(text)
    assert Figure.of("1e-300").verdict(1.4e-300) is Verdict.TO_DIGITS


@settings(deadline=None)
@given(low=st.floats(-10, 10), width=st.floats(0.01, 5), where=st.floats(0, 1), beyond=st.floats(0.06, 5))
def test_an_interval_holds_what_is_in_it(low: float, width: float, where: float, beyond: float) -> None:
    high = low + width
    assert Figure.of(f"{low + where * width:.12f}").verdict_within(low, high) is Verdict.TO_DIGITS
    for off in (low - beyond, high + beyond):
        text = f"{off:.1f}"
        edge = min(abs(float(text) - low), abs(float(text) - high))
        assume(edge > 0.0501)
        assert Figure.of(text).verdict_within(low, high) is Verdict.WRONG
    assert Figure.of("0").verdict_within(np.nan, np.nan) is Verdict.NOT_TESTABLE


# --- the shipped table --------------------------------------------------------------------------------------


def oracle(claim: dict[str, str]) -> Any:
    """The number of a row by formulas of this file, of numpy and of scipy.signal."""
    given = dict(part.partition("=")[::2] for part in claim["parameters"].split(";"))
    p = {name: float(text) for name, text in given.items() if text and name != "library"}
    beta, n = p.get("beta", np.nan), int(p.get("n", 0))
    kind, name = claim["id"].split(".")[:2]
    b, a = [1.0 - beta], [1.0, -beta]
    if kind == "ema" and name in ("gain", "gain_db", "attenuation", "nyquist", "nyquist_db"):
        _, h = signal.freqz(b, a, [2.0 * np.pi * p["f"]])
        gain = abs(h[0])
        return 20.0 * np.log10(gain) if "db" in name else 1.0 / gain if name == "attenuation" else gain
    if kind == "ema":
        step = signal.lfilter(b, a, np.ones(n + 1))[-1]
        impulse = signal.lfilter(b, a, np.eye(1, n + 1)[0])[-1]
        at = np.cos(2.0 * np.pi * p.get("f", 0.1)) - 1.0
        loss = 10.0 ** (p.get("db", 30.0) / 10.0) - 1.0
        return {
            "tau": 1.0 / (1.0 - beta),
            "window": 1.0 / (1.0 - beta),
            "cutoff": np.arccos(1.0 - (1.0 - beta) ** 2 / (2.0 * beta)) / (2.0 * np.pi),
            "step": step,
            "weight": impulse,
            "window_share": 1.0 - beta ** np.rint(1.0 / (1.0 - beta)),
            # 1 + 2 b (1 - cos w) / (1 - b)^2 = 10^(db/10): b^2 - 2 (1 - at/loss) b + 1 = 0
            "lowest_beta_30db": min(np.roots([1.0, -2.0 * (1.0 - at / loss), 1.0])),
        }[name]
    if kind == "transition":
        after = {"101": 1, "150": 50, "200": 100, "3tau": n}
        if name in after:
            return 0.998 - 0.498 * beta ** after[name]
        return np.floor(np.log((0.998 - p["level"]) / 0.498) / np.log(beta)) + 1.0
    if kind == "balance":
        return 1.0 / (1.0 + p["ratio"])
    if kind == "adam" and name == "walkthrough":
        raw = signal.lfilter(b, a, [10.0, 8.0, 12.0, 9.0, 11.0][:n])[-1]
        return raw / (1.0 - beta**n) if "vhat" in claim["id"] else raw
    return {
        "adam.residual": beta**n,
        "batchnorm.beta": 0.9,
        "soft_update.beta": 0.995,
        "nnx.worked_example": [0.1, 0.2, 0.3, 0.4],
        "kalman.reduces_to_ema": 0.0,
        "kalman.same_memory": 1.001,
        "traces.predictor_ablation": np.mean(GAPS),
        "traces.structure_share": np.mean(SHARES),
    }[f"{kind}.{name}"]


WRONG = {
    *("ema.cutoff.0.5", "ema.gain.f0.1.0.5", "ema.gain.f0.1.0.9", "ema.attenuation.f0.1.0.5"),
    *("ema.attenuation.f0.1.0.9", "ema.attenuation.f0.1.0.99", "ema.attenuation.f0.1.0.999"),
    *("ema.gain.f0.05.0.99", "ema.gain_db.f0.1.0.9", "ema.lowest_beta_30db.f0.1"),
    *("ema.step.99", "ema.step.100", "ema.step.200", "ema.step.300"),
    *("transition.150", "transition.200", "transition.3tau", "transition.time_to_0.99"),
    *("batchnorm.beta", "adam.walkthrough.vhat5", "traces.predictor_ablation"),
}
"""By hand, from the oracle."""
ONE_DIGIT = {"balance.weight.10", "balance.weight.500", "balance.weight.10000", "kalman.same_memory"}


def test_every_row_against_a_formula_of_its_own(recall: Any) -> None:
    pytest.importorskip("torch")
    outcome = run()
    summary = outcome.summary
    assert list(summary.columns) == [*COLUMNS, "recomputed", "verdict", "why"]
    assert summary[list(COLUMNS)].to_dict("records") == SHIPPED
    for claim, found in zip(SHIPPED, summary.itertuples(), strict=True):
        expected = np.atleast_1d(oracle(claim))
        np.testing.assert_allclose(
            [float(text) for text in found.recomputed.split()],
            expected,
            rtol=1e-9,
            atol=1e-12,
            err_msg=found.id,
        )
        assert found.verdict in list(Verdict)
        assert (found.verdict == Verdict.WRONG) == (claim["id"] in WRONG), found.id
        assert ("one digit only" in found.why) == (claim["id"] in ONE_DIGIT), found.id
        assert (found.verdict == Verdict.NOT_TESTABLE) == (claim["id"] == "traces.structure_share"), found.id
        assert found.why
        assert "\n" not in found.why
        if found.verdict == Verdict.CORRECT:
            stated = np.array(claim["stated"].split(), dtype=float)
            np.testing.assert_allclose(stated, expected, rtol=1e-9, atol=1e-9)
    long = outcome.table
    assert set(long["metric"]) == {"stated", "recomputed", "difference"}
    assert (long["status"] == "ok").all()
    wide = long.pivot(index=["estimator", "seed"], columns="metric", values="value")
    np.testing.assert_allclose(wide["difference"], wide["stated"] - wide["recomputed"], rtol=0, atol=1e-12)


def test_both_numbers_stand_where_a_definition_matters(recall: Any) -> None:
    outcome = run()
    tau = of(outcome, "ema.tau.0.5")
    assert (tau["recomputed"], tau["verdict"]) == ("2", "correct")
    assert "-1/ln(beta) = 1.4427 samples" in tau["why"]
    assert "off by +0.042 (+36 %)" in of(outcome, "ema.cutoff.0.5")["why"]
    assert "0.6303 is y[98]" in of(outcome, "ema.step.99")["why"]
    assert "63 holds in continuous time" in of(outcome, "ema.attenuation.f0.1.0.99")["why"]
    assert "continuous" not in of(outcome, "ema.gain.f0.1.0.5")["why"]
    assert "it passes 0.801953 at step 193" in of(outcome, "transition.150")["why"]


def test_the_text_counts_and_lists_what_is_wrong(recall: Any) -> None:
    outcome = run()
    counts = outcome.summary["verdict"].value_counts()
    for verdict in Verdict:
        assert f"| {verdict:<27} | {counts.get(verdict, 0):>6} |" in outcome.text
    assert max(map(len, outcome.text.splitlines())) <= 110
    quoted = outcome.text.partition("\nWrong")[2].partition("\n")[2].partition("\nOthers")[0]
    wrong = outcome.summary.loc[outcome.summary["verdict"] == Verdict.WRONG, "id"]
    assert [name for name in outcome.summary["id"] if f"| {name} " in quoted] == list(wrong)
    for source, own in outcome.summary.groupby("source"):
        assert f"- {source}: {len(own)} claim" in outcome.text


def test_a_shared_state_is_as_small_as_it_is_said_to_be() -> None:
    torch = pytest.importorskip("torch")
    from estimators import EMA, Kalman

    sizes = []
    for estimator in (Kalman(q=0.01, r=1.0), EMA(0.9)):
        x = torch.zeros(1000, dtype=torch.float64)
        state = estimator.update(estimator.init(x), x)
        sizes.append(sum(8 * getattr(field, "numel", lambda: 1)() for field in state))
    assert sizes[0] / sizes[1] == oracle({"id": "kalman.same_memory", "parameters": ""})


def test_states_are_measured_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wording = "state size of a random-walk Kalman filter over the state size of an EMA"
    rows = [row(wording, words, "1", "ratio", words) for words in ("shared q and r", "own q and r")]
    path = table(tmp_path / "t.csv", rows)
    if importable("torch"):
        shared, own = (of(run(path), one["id"]) for one in rows)
        assert (shared["recomputed"], shared["verdict"]) == ("1.001", "correct to the digits given")
        assert "within the digits given (one digit only): " in shared["why"]
        assert (
            "2 in NumPy, 1.001 in torch with gaps in common, 2 there with gaps of their own" in shared["why"]
        )
        assert (own["recomputed"], own["verdict"]) == ("2", "wrong")
    monkeypatch.setitem(sys.modules, "torch", None)
    shared, own = (of(run(path), one["id"]) for one in rows)
    assert (shared["verdict"], own["recomputed"]) == ("not testable here", "2")
    assert "pip install 'kalmean[torch]'" in shared["why"]


# --- what changes a verdict, and what does not --------------------------------------------------------------


def test_a_changed_figure_changes_its_verdict_alone(tmp_path: Path, recall: Any) -> None:
    pytest.importorskip("torch")
    before = run().summary.set_index("id")["verdict"]
    changed = [dict(claim) for claim in SHIPPED]
    for claim in changed:
        first, *others = claim["stated"].split()
        claim["stated"] = " ".join([str(3.0 * float(first) + 7.0), *others])
    after = run(table(tmp_path / "all.csv", changed)).summary.set_index("id")["verdict"]
    assert set(after.drop("traces.structure_share")) == {"wrong"}
    assert after["traces.structure_share"] == "not testable here"
    right = [claim | {"stated": "0.11503"} if claim["id"] == "ema.cutoff.0.5" else claim for claim in SHIPPED]
    after = run(table(tmp_path / "one.csv", right)).summary.set_index("id")["verdict"]
    assert after["ema.cutoff.0.5"] == "correct to the digits given"
    assert after.drop("ema.cutoff.0.5").equals(before.drop("ema.cutoff.0.5"))


def test_no_verdict_depends_on_order(tmp_path: Path, recall: Any) -> None:
    plain = [claim for claim in SHIPPED if not claim["id"].startswith("traces")]
    shuffled = [plain[k] for k in np.random.default_rng(3).permutation(len(plain))]
    one, other = (run(table(tmp_path / f"{k}.csv", rows)) for k, rows in enumerate((plain, shuffled)))
    pd.testing.assert_frame_equal(
        one.summary.sort_values("id", ignore_index=True), other.summary.sort_values("id", ignore_index=True)
    )


def test_an_analogue_refutes_a_general_statement_and_confirms_nothing(recall: Any) -> None:
    pytest.importorskip("torch")
    ids = "traces.predictor_ablation", "traces.structure_share"
    ablation, share = (of(run(), name) for name in ids)
    assert ablation["verdict"] == "wrong"
    assert "outside 0.91 ± 0.02 (95 % of n = 3, on the tokens of experiment=recall)" in ablation["why"]
    assert "at state noise sigma 0.2; 0.5 at sigma 0.05, 0.5 at sigma 0.5" in ablation["why"]
    assert (share["verdict"], share["recomputed"]) == ("not testable here", "0.96")
    text = " ".join(run().text.split())
    assert "; 0.91 ± 0.02 (95 % of n = 3, on the tokens of experiment=recall); 0.5 at sigma" in text
    assert (
        "0.96 ± 0.02 (95 % of n = 3, on the grammar of experiment=recall), which holds what is stated"
        in share["why"]
    )
    assert set(recall.seeds) == {(3, 0)}
    recall.gaps[:], recall.shares[:] = (-0.1, 0.1, 0.02), (0.90, 0.91, 0.90)
    ablation, share = (of(run(), name) for name in ids)
    assert (ablation["verdict"], share["verdict"]) == ("not testable here",) * 2
    assert ", on the tokens of experiment=recall), which holds what is stated" in ablation["why"]
    assert (
        "0.903 ± 0.014 (95 % of n = 3, on the grammar of experiment=recall), lower than stated"
        in share["why"]
    )
    recall.shares[:] = (0.99, 0.991, 0.992)
    assert "of experiment=recall), higher than stated" in of(run(), ids[1])["why"]
    assert "\nNot testable here:\n\n- traces." in run().text
    single = of(run(seeds=1), ids[0])
    assert single["verdict"] == "not testable here"
    assert "1 run, which give no interval" in single["why"]


def test_what_is_not_installed_is_not_testable(recall: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recall.fails = MissingExtraError("recall needs scikit-learn: pip install 'kalmean[training]'")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "torch.nn", None)
    outcome = run()
    absent = outcome.summary[outcome.summary["verdict"] == "not testable here"].set_index("id")
    assert list(absent.index) == [
        *("batchnorm.beta", "kalman.same_memory", "traces.predictor_ablation", "traces.structure_share")
    ]
    assert (absent["recomputed"] == "").all()
    assert "pip install 'kalmean[torch]'" in absent.loc["batchnorm.beta", "why"]
    assert "kalmean[training]" in absent.loc["traces.structure_share", "why"]
    rows = outcome.table[outcome.table["estimator"] == "batchnorm.beta"].set_index("metric")
    assert rows["status"].to_dict() == {
        "stated": "ok",
        "recomputed": "not testable here",
        "difference": "not testable here",
    }
    assert "Not testable here:" in outcome.text


def test_a_frequency_that_there_is_not_is_wrong(tmp_path: Path) -> None:
    only = row("-3 dB cutoff frequency", "beta=0.1", "0.3", "cycles/sample")
    outcome = run(table(tmp_path / "t.csv", [only]))
    assert of(outcome, "a")["verdict"] == "wrong"
    assert of(outcome, "a")["why"].startswith("there is none: ")


def test_a_figure_near_the_largest_is_wrong_and_no_warning(tmp_path: Path) -> None:
    only = row("effective window 1/(1-beta)", "beta=0.5", "1e308", "samples")
    found = of(run(table(tmp_path / "t.csv", [only])), "a")
    assert (found["verdict"], found["recomputed"]) == ("wrong", "2")


def test_nothing_wrong_is_said(tmp_path: Path) -> None:
    outcome = run(
        table(tmp_path / "t.csv", [row("effective window 1/(1-beta)", "beta=0.9", "10", "samples")])
    )
    assert "\nWrong: none.\n" in outcome.text


def test_every_quantity_is_claimed_in_the_shipped_table() -> None:
    used = [quantity_of(claim) for _, claim in claims_of(claims.SHIPPED.read_bytes())]
    assert {id(one) for one in used} == {id(one) for one in QUANTITIES}


# --- the command line, and what is refused ------------------------------------------------------------------


def test_a_table_of_ones_own(kalmean: Callable[..., Any], tmp_path: Path) -> None:
    path = table(tmp_path / "book.csv", [row("impulse response h[2]", "beta=0.5;n=2", "0.125", "value")])
    own = "experiment=claims", f"experiment.path={path}"
    ran = kalmean(*own)
    assert (ran.code, ran.err) == (0, "")
    first = ran.folder
    assert list(ran.summary["verdict"]) == ["correct"]
    before = (first / "summary.csv").read_bytes()
    assert "unchanged" in kalmean(*own).out
    anew = kalmean(*own, output="other").folder
    assert (anew / "summary.csv").read_bytes() == before
    table(path, [row("impulse response h[2]", "beta=0.5;n=2", "0.11", "value")])  # at the same place
    kalmean(*own)
    second = next(folder for folder in first.parent.iterdir() if folder != first)
    assert list(pd.read_csv(second / "summary.csv")["verdict"]) == ["wrong"]


def test_the_digest_pins_a_table() -> None:
    digest = Parameters().sha256
    assert Parameters(sha256=digest) == Parameters()
    with pytest.raises(ValueError, match=r"^experiment\.sha256='00' is not valid; that of the table is "):
        Parameters(sha256="00")


def test_a_run_without_a_package_is_not_that_with_it(
    kalmean: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    needing = row("beta equivalent of PyTorch BatchNorm default momentum", "", "0.9", "beta")
    own = "experiment=claims", f"experiment.path={table(tmp_path / 'book.csv', [needing])}"
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "torch", None)
        absent.setitem(sys.modules, "torch.nn", None)
        without = kalmean(*own).folder
    assert list(pd.read_csv(without / "summary.csv")["verdict"]) == ["not testable here"]
    kalmean(*own)
    anew = next(folder for folder in without.parent.iterdir() if folder != without)
    assert list(pd.read_csv(anew / "summary.csv")["verdict"]) == ["correct"]
    assert Parameters(str(tmp_path / "book.csv")).packages == "torch"
    with pytest.raises(ValueError, match=r"^experiment\.packages='jax' is not valid; .* is 'torch'$"):
        Parameters(str(tmp_path / "book.csv"), packages="jax")


def test_a_table_holds_any_id(tmp_path: Path) -> None:
    names = ["a|b", "b" * 200]
    rows = [row("impulse response h[2]", "beta=0.5", "1" + "0" * 150, "value", name) for name in names]
    text = run(table(tmp_path / "t.csv", rows)).text
    assert "| a\\|b" in text
    assert max(map(len, text.splitlines())) <= 110


LONG = "1" * 100_000


@pytest.mark.parametrize(
    "change",
    [
        *({name: "x" * 100_000} for name in ("stated", "unit", "quantity")),
        *(
            {"parameters": one}
            for one in (f"beta={LONG}", f"n={LONG}", f"x={LONG}", f"beta=0.5;n={LONG}", LONG)
        ),
        *({"id": LONG, name: "\n"} for name in ("stated", "source", "quantity")),
    ],
)
def test_an_error_shows_the_beginning_of_a_long_cell(tmp_path: Path, change: dict[str, str]) -> None:
    path = table(tmp_path / "t.csv", [row("impulse response h[2]", "beta=0.5", "0.125", "value") | change])
    with pytest.raises(ValueError, match=r"^experiment\.path=") as error:
        run(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 1600  # all wordings that are valid among them


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stated": "high"}, "row 2 (a): stated='high' is not valid; it must be a number"),
        ({"stated": ""}, "row 2 (a): stated is empty"),
        ({"stated": "1e400"}, "row 2 (a): stated='1e400' is not valid; it must be finite in float64"),
        ({"parameters": "beta=.9;beta=.99"}, "row 2 (a): parameters='beta=.9;beta=.99' give 'beta' twice"),
        (
            {"parameters": "beta=\u0660.\u0665"},
            "row 2 (a): beta='\u0660.\u0665' is not valid; it must be a finite number",
        ),
        ({"parameters": "beta=0_5"}, "row 2 (a): beta='0_5' is not valid; it must be a finite number"),
        (
            {"quantity": "impulse response h[\u0662]", "parameters": "beta=.5;n=2"},
            "is not one that is recomputed",
        ),
        ({"id": "a\x1b[31m"}, "id='a\\x1b[31m' is not valid; it must be one line of plain text"),
        ({"unit": "value\n"}, "unit='value\\n' is not valid; it must be one line of plain text"),
        ({"source": "a\u2028b"}, "source='a\\u2028b' is not valid; it must be one line of plain text"),
        (
            {"quantity": "magnitude response at f=1e308", "parameters": "beta=0.5", "unit": "ratio"},
            "row 2 (a): f=1e308 is not valid; it must be from 0 to 0.5 cycles/sample",
        ),
        (
            {
                "quantity": "share of the total weight on the newest 1/(1-beta) samples",
                "parameters": "beta=0.99999999999",
                "unit": "share",
            },
            "a: beta=0.99999999999 is not valid; its effective window must be 1,000,000 samples or less",
        ),
        (
            {
                "quantity": "weight of the large share 5 steps after the jump",
                "parameters": "beta=0.999999",
            },
            "a: beta=0.999999 is not valid; its effective window must be 100,000 samples or less",
        ),
        (
            {
                "quantity": "weight of the large share at step 150 (0.5 for 1e12 steps; then raw 0.998)",
                "parameters": "beta=0.9",
            },
            "row 2 (a): warmup=1e12 is not valid; it must be an int from 0 to 1,000,000",
        ),
        ({"unit": "hertz"}, "row 2 (a): unit='hertz' is not valid; it must be value"),
        ({"parameters": "n=2"}, "row 2 (a): parameters='n=2' is not valid; it must give beta=NUMBER"),
        ({"parameters": "beta=x;n=2"}, "row 2 (a): beta='x' is not valid; it must be a finite number"),
        ({"parameters": "beta=.5;n=3"}, "row 2 (a): parameters give n=3, its quantity says 2"),
        ({"parameters": "beta=.5;f=3"}, "row 2 (a): parameters give f=3, of which it has no use"),
        ({"parameters": "beta=1;n=2"}, "a: EMA: beta=1.0 is not valid"),
        ({"stated": "1 2"}, "a: stated='1 2' is not valid; it must be 1 number"),
        ({"quantity": "impulse respons h[2]"}, "did you mean impulse response h[{n}]?"),
        ({"quantity": "impulse response h[-2]", "parameters": "beta=.5"}, "it must be an int from 0"),
        (
            {
                "quantity": "beta equivalent of PyTorch BatchNorm default momentum",
                "parameters": "library=jax",
                "unit": "beta",
            },
            "parameters give library=jax, its quantity says torch",
        ),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    only = row("impulse response h[2]", "beta=0.5;n=2", "0.125", "value") | change
    path = table(tmp_path / "book.csv", [only])
    with pytest.raises(ValueError, match=r"^experiment\.path=") as error:
        run(path)
    assert str(error.value).startswith(f"experiment.path='{path}': ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is 'nothing'"),
        ("id,stated\na,1\n", "its first line is 'id,stated'; it must be 'id,source,quantity,"),
        (",".join(COLUMNS) + "\n", "it has no rows"),
        (",".join(COLUMNS) + "\na,b,c\n", "row 2 (a) has 3 cells; it must have 6"),
        (",".join(COLUMNS) + '\na,"b', "it cannot be read (unexpected end of data); it must be CSV"),
        ("\xff", "it cannot be read ('utf-8' codec"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"^experiment\.path=") as error:
        Parameters(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_id_given_twice_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    twice = [row("impulse response h[2]", "beta=0.5", "0.125", "value")] * 2
    with pytest.raises(ValueError, match=r"row 3 \(a\) has the id of row 2; ids must differ"):
        Parameters(str(table(tmp_path / "book.csv", twice)))
    with pytest.raises(
        ValueError, match=r"cannot be read \(No such file or directory\); name a table of claims"
    ):
        Parameters(str(tmp_path / "none.csv"))


def test_other_settings_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = table(tmp_path / "book.csv", [row("impulse response h[2]", "beta=1", "0.1", "value")])
    said = refused("experiment=claims", f"experiment.path={path}")
    assert said.startswith(f"experiment.path='{path}': a: EMA: beta=1.0 is not valid")
    assert "leave match and tune at none" in refused("experiment=claims", "match=delay")


def test_words_and_parameters_may_write_a_number_differently() -> None:
    claim = Claim("a", "b", "magnitude response at f=0.10", "beta=0.5;f=.1", "0.75", "ratio")
    assert quantity_of(claim).given(claim)["f"] == 0.1
