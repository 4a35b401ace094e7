"""Every shipped choice composes and builds, every fixed key is taken, every mistake is one helpful line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from experiments import config, registry
from experiments.config import ConfigError
from experiments.job import Job
from experiments.setup import Setup

FOUR = ["ema", "debiased_ema", "kalman", "moving_average"]
Refused = Callable[..., str]
Kalmean = Callable[..., Any]


def setup_of(*overrides: str) -> Setup:
    return Job.of(overrides).setup


# --- what ships ---------------------------------------------------------------------------------------------


def test_the_default_configuration_is_the_main_job() -> None:
    setup = setup_of()
    r = 1.7956
    assert setup.estimators == {
        "ema": EMA(0.99),
        "debiased_ema": DebiasedEMA(0.99),
        "kalman": Kalman(q=r / 9900, r=r),
        "moving_average": MovingAverage(199),
    }
    assert list(setup.estimators) == FOUR
    assert (setup.stream_name, setup.stream.length()) == ("gradient_ratio", 10_000)
    assert (setup.seeds, setup.root_seed, setup.burn_in) == (100, 0, 1000)
    assert (setup.match.value, setup.tune.value) == ("none", "none")
    assert setup.noise_variance == r


def test_the_default_set_is_matched() -> None:
    estimators: Any = setup_of().estimators.values()
    for quantity, expected in (("noise_gain", 1 / 199), ("group_delay", 99.0)):
        for estimator in estimators:
            assert getattr(estimator, quantity) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", sorted(config.options("stream")))
def test_every_stream_builds_and_can_be_drawn(name: str) -> None:
    setup = setup_of(f"stream={name}")
    assert setup.stream_name == name
    assert setup.stream.draw([0], 0, "evaluate").samples.shape == (setup.stream.length(), 1)
    kalman: Any = setup.estimators["kalman"]
    assert kalman.r == setup.noise_variance > 0
    assert kalman.steady_gain == pytest.approx(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(config.options("estimators")))
def test_every_estimator_builds_under_its_name(name: str) -> None:
    if name not in registry.estimator_kinds():
        pytest.skip(f"the library has no class that is called {name}")
    (estimator,) = setup_of(f"estimators=[{name}]").estimators.values()
    assert isinstance(estimator, registry.estimator_kinds()[name])


@pytest.mark.parametrize("name", sorted(config.options("experiment")))
def test_every_experiment_builds(name: str) -> None:
    assert isinstance(setup_of(f"experiment={name}").parameters, registry.experiment(name).Parameters)


def test_one_yaml_for_every_class_and_one_class_for_every_yaml() -> None:
    assert set(config.options("stream")) >= set(registry.stream_kinds())
    assert set(config.options("estimators")) == set(registry.estimator_kinds())


@pytest.mark.parametrize("group", config.GROUPS)
def test_every_choice_opens_with_what_it_is(group: str) -> None:
    choices = config.options(group)
    assert choices
    assert all(comment.endswith(".") and len(comment) > 10 for comment in choices.values())


# --- keys and what they do ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("stream=step", lambda s: s.stream_name, "step"),
        ("stream.steps=77", lambda s: s.stream.length(), 77),
        ("stream.domain=weight", lambda s: s.stream.unit, "weight"),
        ("stream.noise_variance=2.5", lambda s: (s.noise_variance, s.estimators["kalman"].r), (2.5, 2.5)),
        ("stream.r=4", lambda s: (s.noise_variance, s.estimators["kalman"].q), (4.0, 4.0 / 9900)),
        ("estimators=[kalman,ema]", lambda s: list(s.estimators), ["kalman", "ema"]),
        ("estimators=ema", lambda s: list(s.estimators), ["ema"]),
        ("estimators=[]", None, None),
        ("estimators.ema.beta=0.9", lambda s: s.estimators["ema"], EMA(0.9)),
        ("estimators.ema.initial=null", lambda s: s.estimators["ema"], EMA(0.99, initial=None)),
        ("estimators.kalman.q=0", lambda s: s.estimators["kalman"], Kalman(q=0.0, r=1.7956)),
        ("estimators.kalman.variance=1", lambda s: s.estimators["kalman"].variance, 1.0),
        ("estimators.moving_average.window=3", lambda s: s.estimators["moving_average"], MovingAverage(3)),
        ("seeds=7", lambda s: s.seeds, 7),
        ("root_seed=123456789012345678901", lambda s: s.root_seed, 123456789012345678901),
        ("burn_in=0", lambda s: s.burn_in, 0),
        ("burn_in=500", lambda s: s.burn_in, 500),
        ("match=noise_gain", lambda s: s.match.value, "noise_gain"),
        ("match=delay", lambda s: s.match.value, "delay"),
        ("match=mse", lambda s: s.match.value, "mse"),
        ("tune=rmse", lambda s: s.tune.value, "rmse"),
        ("tune=prediction_rmse", lambda s: s.tune.value, "prediction_rmse"),
        ("executor=local", lambda s: s.seeds, 100),
        ("output=elsewhere", lambda s: s.seeds, 100),
        ("~estimators.ema", lambda s: list(s.estimators), FOUR[1:]),
        (
            "+estimators.slow={kind: ema, beta: 0.999}",
            lambda s: (list(s.estimators), s.estimators["slow"]),
            ([*FOUR, "slow"], EMA(0.999)),
        ),
        ("+estimators.k={kind: kalman, q: 1, r: 2}", lambda s: s.estimators["k"], Kalman(q=1.0, r=2.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fixed_keys(override: str, read: Callable[[Any], Any] | None, expected: Any) -> None:
    if read is None:
        with pytest.raises(ValueError, match=r"^estimators=\[\] is not valid; name at least one"):
            setup_of(override)
    else:
        assert read(setup_of(override)) == expected


def test_later_overrides_win_and_the_order_of_others_is_free() -> None:
    assert setup_of("seeds=3", "seeds=4").seeds == 4
    assert setup_of("stream.steps=50", "stream=ramp", "seeds=2") == setup_of(
        "seeds=2", "stream=ramp", "stream.steps=50"
    )


@pytest.mark.parametrize(("steps", "burn_in"), [(10_000, 1000), (4000, 1000), (3999, 999), (10, 2), (1, 0)])
def test_burn_in_is_a_quarter_and_at_most_1000(steps: int, burn_in: int) -> None:
    assert setup_of(f"stream.steps={steps}").burn_in == burn_in


def test_a_kalman_follows_the_noise_of_its_stream_and_domain() -> None:
    for stream in ("stream=gradient_ratio_b64", "stream=recorded", "stream.domain=ratio"):
        setup = setup_of(stream)
        kalman: Any = setup.estimators["kalman"]
        assert kalman.r == setup.noise_variance == setup.stream.own_noise_variance()
        assert kalman.q == pytest.approx(kalman.r / 9900)


def test_composing_leaves_no_state_behind() -> None:
    first = setup_of()
    setup_of("stream=ramp", "seeds=3", "estimators=[ema]", "estimators.ema.beta=0.5")
    assert setup_of() == first


def test_the_text_of_a_configuration_is_itself() -> None:
    read = OmegaConf.create(Job.of(["seeds=3", "burn_in=5"]).text)
    assert OmegaConf.to_container(read) == OmegaConf.to_container(OmegaConf.create(config.text(read)))
    assert (read.seeds, read.burn_in, read.estimators.ema.beta) == (3, 5, 0.99)


def test_the_shipped_recordings_names_yield_to_a_callers_own() -> None:
    shipped = config.recordings("digits_b8_seed0.csv.gz")
    assert Path(shipped).exists()
    assert config.if_shipped(shipped, None, "norm") == "norm"
    assert config.if_shipped(shipped, "column", "norm") is None
    assert config.if_shipped("log.csv", None, "norm") is None


def test_built_names_what_is_wrong() -> None:
    @dataclass(frozen=True)
    class Kind:
        needed: float
        other: float = 1.0
        many: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            if self.other < 0:
                raise ValueError("other must be >= 0")
            self.needed + 1

    assert config.built("here", Kind, {"needed": 2.0}) == Kind(2.0)
    for settings, message in (
        (
            {"needed": 1.0, "othr": 2.0},
            "here.othr is not a setting; did you mean other? valid: needed, other, many",
        ),
        ({"other": 2.0}, "here.needed is not set; here needs needed"),
        ({"needed": 1.0, "other": -1.0}, "here: other must be >= 0"),
        ({"needed": None}, "here: unsupported operand"),
    ):
        with pytest.raises(ConfigError) as caught:
            config.built("here", Kind, settings)
        assert str(caught.value).startswith(message)


# --- mistakes, each one line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        # a typo in the name of a group, a choice, a key, a sub-key, a parameter
        ("experimnt=compare", ["'experimnt' is not a setting", "did you mean experiment?"]),
        ("streem=ramp", ["'streem' is not a setting", "did you mean stream?"]),
        ("estimator=[ema]", ["'estimator' is not a setting", "did you mean estimators?"]),
        ("experiment=comparee", ["experiment=comparee is not available", "did you mean compare?"]),
        ("stream=gradient_ration", ["stream=gradient_ration", "did you mean gradient_ratio?", "recorded"]),
        ("stream=''", ["stream=", "is not available; valid: gradient_ratio"]),
        ("estimators=[emma]", ["estimators=emma is not available", "did you mean ema?"]),
        ("executor=slrm", ["executor=slrm is not available; did you mean slurm? valid: local, ray, slurm"]),
        ("seed=3", ["'seed' is not a setting", "did you mean seeds?"]),
        ("+seed=3", ["'seed' is not a setting", "did you mean seeds?"]),
        ("++sedes=3", ["'sedes' is not a setting", "did you mean seeds?"]),
        ("stream.stepz=5", ["stream has no setting 'stepz'", "did you mean steps?"]),
        ("+stream.stepz=5", ["stream.stepz is not a setting", "did you mean steps?"]),
        ("experiment.betas=[0.5]", ["experiment has no setting 'betas'"]),
        ("estimators.emma.beta=0.9", ["estimators has no setting 'emma'", "did you mean ema?"]),
        ("estimators.ema.bta=0.9", ["estimators.ema has no setting 'bta'", "did you mean beta?"]),
        ("estimators.kalman.R=1", ["estimators.kalman has no setting 'R'", "valid: kind, q, r"]),
        ("executor.nodes=2", ["executor has no setting 'nodes'"]),
        ("match=noise", ["match=noise is not valid", "[none, noise_gain, delay, mse]"]),
        ("tune=mse", ["tune=mse is not valid", "[none, rmse, prediction_rmse]"]),
        ("stream.domain=logratio", ["stream.domain=logratio is not valid", "[log_ratio, ratio, weight]"]),
        # a value of the wrong type
        ("seeds=many", ["seeds=many is not valid", "integer"]),
        ("seeds=1.5", ["seeds=1.5 is not valid", "integer"]),
        ("seeds=", ["seeds= is not valid", "integer"]),
        ("seeds=null", ["seeds=null is not valid; it needs a value"]),
        ("seeds=true", ["seeds=True is not valid"]),
        ("burn_in=few", ["burn_in=few is not valid"]),
        ("stream.steps=1e4", ["stream.steps=10000.0 is not valid", "integer"]),
        ("stream.r=loud", ["stream.r=loud is not valid", "float"]),
        ("estimators.ema.beta=x", ["estimators.ema.beta=x is not valid", "float"]),
        ("estimators.ema.beta=[0.9]", ["estimators.ema.beta=[0.9] is not valid", "float"]),
        ("estimators.kalman.q=null", ["estimators.kalman.q=null is not valid; it needs a value"]),
        ("estimators.moving_average.window=2.5", ["estimators.moving_average.window=2.5", "integer"]),
        ("estimators.ema=5", ["estimators.ema=5 is not valid", "mapping"]),
        # a value out of range
        ("estimators.ema.beta=1", ["estimators.ema: EMA: beta=1.0 is not valid", "[0, 1)", "frozen"]),
        ("estimators.ema.beta=-0.1", ["estimators.ema: EMA: beta=-0.1", "[0, 1)"]),
        ("estimators.debiased_ema.beta=0", ["estimators.debiased_ema: DebiasedEMA: beta=0.0", "(0, 1)"]),
        ("estimators.kalman.q=-1", ["estimators.kalman: Kalman: q=-1.0", ">= 0"]),
        ("estimators.kalman.r=nan", ["estimators.kalman: Kalman: r=nan", ">= 0"]),
        ("estimators.moving_average.window=0", ["estimators.moving_average", "window=0", ">= 1"]),
        ("seeds=0", ["seeds=0 is not valid", ">= 1"]),
        ("seeds=-5", ["seeds=-5 is not valid", ">= 1"]),
        ("root_seed=-1", ["root_seed=-1 is not valid", ">= 0"]),
        ("burn_in=10000", ["burn_in=10000 is not valid", "[0, 10000)"]),
        ("burn_in=-1", ["burn_in=-1 is not valid", "[0, 10000)"]),
        ("stream.steps=0", ["stream.steps=0 is not valid", ">= 1"]),
        ("stream.correlation=1", ["stream.correlation=1.0 is not valid", "(-1, 1)"]),
        ("stream.noise_variance=0", ["stream.noise_variance=0.0 is not valid", "> 0"]),
        ("estimators=[]", ["estimators=[] is not valid", "estimators=[ema,kalman]"]),
        ("output=", ["output='' is not valid"]),
        # what Hydra cannot read, or takes without effect
        ("seeds", ["cannot read 'seeds'", "key=value"]),
        ("=5", ["cannot read '=5'", "key=value"]),
        ("estimators=[ema", ["cannot read 'estimators=[ema'", "key=value"]),
        ("stream.s=a(b.csv", ["cannot read 'stream.s=a(b.csv'"]),
        ("seeds=1,2", ["seeds=1,2 names several values"]),
        ("stream=ramp,step", ["stream=ramp,step names several values"]),
        ("stream=[ramp,step]", ["stream=[ramp,step] is not valid", "ramp", "step"]),
        ("stream=null", ["stream=null is not valid; valid: gradient_ratio"]),
        ("stream=5", ["stream=5 is not valid; valid: gradient_ratio"]),
        ("estimators=[5]", ["estimators=[5] is not valid", "ema"]),
        ("estimators=[[ema]]", ["estimators=[[ema]] is not valid", "ema"]),
        ("estimators={ema: {beta: 0.5}}", ["is not valid; valid: debiased_ema, ema"]),
        ("~seeds", ["~seeds is not valid", "~estimators.ema"]),
        ("~stream", ["~stream is not valid"]),
        ("~estimators", ["~estimators is not valid"]),
        ("~estimators.ema.beta", ["~estimators.ema.beta is not valid"]),
        ("~estimators.emma", ["emma"]),
        ("hydra.run.dir=x", ["hydra.run.dir=x", "no effect"]),
        ("hydra/launcher=joblib", ["hydra/launcher=joblib", "no effect"]),
        # interpolations that lead nowhere
        ("seeds=${nothing}", ["seeds", "'nothing' not found"]),
        ("output=${nothing.at.all}", ["output", "nothing.at.all"]),
        ("estimators.kalman.q=${nothing}", ["estimators.kalman.q", "'nothing' not found"]),
        ("stream.r=${strem.s}", ["stream.r", "'strem.s' not found"]),
        ("estimators.kalman.q=${divide:1,0}", ["estimators.kalman.q", "division by zero"]),
        ("estimators.kalman.q=${halve:1}", ["estimators.kalman.q", "halve"]),
        # rows of one's own
        ("+estimators.slow={kind: emma, beta: 0.9}", ["estimators.slow.kind=emma", "did you mean ema?"]),
        ("+estimators.slow={beta: 0.9}", ["estimators.slow.kind=slow is not available", "ema"]),
        ("+estimators.slow={kind: ema, bta: 0.9}", ["estimators.slow.bta is not a setting", "beta?"]),
        ("+estimators.slow={kind: ema}", ["estimators.slow.beta is not set"]),
        ("+estimators.slow={kind: ema, beta: 1}", ["estimators.slow: EMA: beta=1"]),
        ("+estimators.slow={kind: ema, beta: high}", ["estimators.slow: EMA: beta='high'"]),
        ("+estimators.slow=5", ["estimators.slow=5 is not valid", "mapping"]),
        # names behind the choices
        ("experiment.name=foo", ["experiment.name=foo is not available; valid: adaptation, balancing"]),
        ("estimators.ema.kind=foo", ["estimators.ema.kind=foo is not available"]),
        ("stream.kind=foo", ["stream.kind=foo is not available"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_is_one_line_that_helps(refused: Refused, override: str, parts: list[str]) -> None:
    message = refused(override)
    for part in parts:
        assert part in message, message
    assert "object_type" not in message
    assert "full_key" not in message


def test_a_path_that_does_not_exist(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "stream.path='missing.csv': does not exist" in refused(
        "stream=recorded", "stream.path=missing.csv"
    )
    (tmp_path / "mising.csv").write_text("x\n1\n2\n")
    assert "did you mean 'mising.csv'?" in refused("stream=recorded", "stream.path=missing.csv")
    assert "matches no file" in refused("stream=recorded", "stream.path=run*.csv")


@pytest.mark.parametrize("option", ["-x", "--multi-run", "--cfgs", "--config-name"])
def test_an_option_that_does_not_exist(refused: Refused, option: str) -> None:
    for overrides in ([option], [option, "seeds=1,2"]):
        message = refused(*overrides)
        assert option in message
        assert "--help" in message


def test_a_stream_beyond_memory(kalmean: Callable[..., Any]) -> None:
    ran = kalmean("stream.steps=1000000000000000", "seeds=1")
    assert ran.code == 2
    assert "too large for this machine's memory: stream.steps" in ran.err.splitlines()[-1]
    assert not ran.output.exists()


def test_a_setting_of_another_stream_names_that_stream() -> None:
    with pytest.raises(ConfigError, match=r"^stream\.path is a setting of stream=recorded; choose that too$"):
        Job.of(["stream.path=log.csv"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("executor.name=condor", "executor=condor is not available; valid: local, ray, slurm"),
        ("executor.workers=-1", "executor.workers=-1 is not valid; it must be an int >= 0, or null"),
        ("+executor.nodes=2", "executor.nodes is not a setting; did you mean workers? valid: workers"),
    ],
)
def test_an_executor_that_there_is_not_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Job.of([override])
    assert str(caught.value) == message


# --- names of files and columns -----------------------------------------------------------------------------


NAMES = ["loss (train)", "a=b", "ü", "it's", "back\\", "x\\'", "[a", "100 %", "loss: train"]


@pytest.mark.parametrize("name", [*NAMES, "train/loss", "run-1 - train/loss"])
def test_a_column_may_have_any_name(name: str) -> None:
    (read,) = config.parsed([config.quoted(f"stream.column={name}")])
    assert read.value() == name


@pytest.mark.parametrize(
    "override",
    ["stream.column=loss", "stream.column='a b'", "stream.s=(", "seeds", "stream.column=", "stream.path=a,b"],
)
def test_what_can_be_read_and_what_is_no_name_is_left_as_it_is(override: str) -> None:
    assert config.quoted(override) == override


@pytest.mark.slow
def test_a_column_of_any_name_is_found(kalmean: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "my (log).csv").write_text(
        "step,loss (train)\n" + "".join(f"{t},{2 + t % 7}\n" for t in range(40))
    )
    ran = kalmean(
        "experiment=recommend", "stream=recorded", "stream.path=my (log).csv", "stream.column=loss (train)"
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("recommend for loss (train) of my (log).csv: 40 samples")


# --- what a beginner writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "beta=0.9",
            "'beta' is not a setting; did you mean estimators.ema.beta or estimators.debiased_ema.beta?",
        ),
        ("ema.beta=0.9", "'ema' is not a setting; did you mean estimators.ema?"),
        ("domain=ratio", "'domain' is not a setting; did you mean stream.domain?"),
        ("kalman.q=1", "'kalman' is not a setting; did you mean estimators.kalman?"),
    ],
)
def test_a_key_without_its_group_is_told_in_full(refused: Refused, override: str, expected: str) -> None:
    assert refused(override) == expected


def test_a_file_alone_is_told_how_to_be_read(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("loss\n1\n2\n")
    assert refused("log.csv") == "log.csv is no setting; write stream=recorded stream.path=log.csv"
