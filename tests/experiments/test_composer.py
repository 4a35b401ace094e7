"""A sweep's points are what Hydra would compose one by one, only faster; panels hold what they compare."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from experiments import config, idle
from experiments.axes import Axis, Sweep
from experiments.composer import Composer
from experiments.config import ConfigError
from experiments.executors.local import Local
from experiments.job import Job
from experiments.plan import Panel, Runs, panels, wanted
from experiments.readers import read_series
from experiments.settings import Match, Tune
from experiments.store import Store

Refused = Callable[..., str]
Yaml = Callable[[str], None]
Outcome = tuple[list[str], str] | str
"""Every value of a configuration with its type, and the stream's name; or the one line that refuses it."""


def exact(composed: DictConfig) -> list[str]:
    """Values by full key, in order; by repr, as an enum and its text are equal but do not act alike."""

    def lines(key: str, value: Any) -> list[str]:
        if isinstance(value, dict) and value:
            return [line for name, item in value.items() for line in lines(f"{key}.{name}", item)]
        return [f"{key.lstrip('.')}: {value!r}"]

    return lines("", OmegaConf.to_container(composed, resolve=False))


FOLDER, hydras = config.folder(), config.composed


@functools.cache
def known(overrides: tuple[str, ...]) -> tuple[DictConfig, str] | str:
    """What Hydra makes of overrides, all of them at once; or the line that refuses them."""
    try:
        return hydras(overrides)
    except ConfigError as error:
        return str(error)


@pytest.fixture(autouse=True)
def each_composition_is_paid_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of what Hydra composed for other tests before, as a composition takes long."""

    def composed(overrides: Sequence[str]) -> tuple[DictConfig, str]:
        if config.folder() != FOLDER:
            return hydras(overrides)
        found = known(tuple(overrides))
        if isinstance(found, str):
            raise ConfigError(found)
        return copy.deepcopy(found)

    monkeypatch.setattr(config, "composed", composed)


def reference(*overrides: str) -> Outcome:
    """What Hydra makes of overrides, to compare with."""
    found = known(overrides)
    return found if isinstance(found, str) else (exact(found[0]), found[1])


def at(composer: Composer, point: Sequence[str]) -> Outcome:
    """What a composer makes of a point."""
    try:
        with composer.at(point) as composed:
            return exact(composed.config), composed.base.stream_name
    except ConfigError as error:
        return str(error)


def points_of(*overrides: str) -> list[dict[str, str]]:
    return [dict(point.swept) for point in Job.of(overrides, multirun=True).points]


def refusal(*overrides: str, multirun: bool = True) -> str:
    """The line with which a job is refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  whatever refuses it, the command line prints it
        Job.of(overrides, multirun)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- composed fast, and by Hydra ----------------------------------------------------------------------------


QUICK = ("gradient_ratio", "recorded")


@pytest.mark.slow
@pytest.mark.parametrize(
    "stream",
    [
        stream if stream in QUICK else pytest.param(stream, marks=pytest.mark.slow)
        for stream in sorted(config.options("stream"))
    ],
)
def test_every_experiment_on_every_stream_is_composed_as_by_hydra(stream: str) -> None:
    value = "stream.noise_variance=2.5"
    for experiment in config.options("experiment"):
        composer = Composer((f"experiment={experiment}",))
        for point in ((f"stream={stream}", value), (f"stream={stream}",)):
            assert at(composer, point) == reference(*composer.fixed, *point)


SWEEPS = [
    # parameters of estimators and streams
    ["estimators.kalman.q=1e-5,1e-4"],
    ["estimators.ema.beta=0.9,0.99", "estimators.moving_average.window=19,199"],
    ["estimators.ema.initial=null,1.5"],
    ["estimators.ema.kind=ema,debiased_ema"],
    ["stream.steps=100,1_000", "stream.r=1,.5,inf"],
    ["stream.noise_variance=1,2,null"],
    ["stream.domain=ratio,weight,log_ratio"],
    ["stream.domain=1,0"],
    # settings of the run
    ["match=none,delay"],
    ["tune=none,rmse,prediction_rmse"],
    ["burn_in=null,5"],
    ["root_seed=0,123456789012345678901"],
    # choices of groups, alone and with values
    ["stream=gradient_ratio,recorded", "stream.noise_variance=1,2"],
    ["stream.r=1,2", "stream=step,ramp"],
    ["stream=glob(gradient*)"],
    ["stream=glob(*, exclude=[g*, r*])"],
    ["estimators=[ema],[kalman]"],
    ["estimators=[ema,kalman],[kalman,ema]", "estimators.ema.beta=0.9,0.8"],
    ["estimators=ema,kalman"],
    ["experiment=idle", "experiment.seconds=0,1e-3"],
    ["experiment=response", "experiment.betas=[0.1],[0.2,0.3]"],
    # rows added, left out and replaced
    ["+estimators.slow={kind: ema, beta: 0.999}", "estimators.slow.beta=0.9,0.99"],
    ["+estimators.slow={kind: ema, beta: 0.999},{kind: ema, beta: 0.99}", "estimators.ema.beta=0.5,0.6"],
    ["estimators.ema={beta: 0.3},{initial: null}"],
    ["estimators.ema.beta=0.2,0.4", "estimators.ema={beta: 0.3},{initial: null}"],
    ["estimators.ema={beta: 0.3},{initial: null}", "estimators.ema.beta=0.2,0.4"],
    ["~estimators.ema", "estimators.kalman.q=1,2"],
    ["++estimators.ema.beta=0.9,0.8"],
    ["+estimators.ema.more=1,2"],
    # the grammar
    ["stream=recorded", r"stream.path='a b.csv','it\'s','x,y','\\','$'"],
    ["stream=recorded", 'stream.path="a","it\'s","1","null"'],
    ["stream=recorded", "stream.column=1,x,true,null"],
    ["estimators.moving_average.window=range(1,4)"],
    ["estimators.ema.beta=range(0.5,0.9,0.2)"],
    ["estimators.ema.beta=choice(0.1,0.2)"],
    ["estimators.ema.beta=sort(0.3,0.2)"],
    ["stream.median=float(range(1,3))"],
    ["stream.median=str(1,2)", "stream.steps=int(5.0,6.0)"],
    ["estimators.ema.beta=0.9,0.9"],
    # interpolations, told and resolved later
    ["estimators.kalman.q=${stream.r},1"],
    ["stream.r=2,3", "estimators.kalman.r='${divide:${stream.r},2}',${stream.noise_variance}"],
    # later fixed values win, and a key's last mention counts
    ["seeds=3", "root_seed=1", "seeds=4", "root_seed=1,2"],
]


@pytest.mark.parametrize(
    "overrides",
    [
        # each third is enough to see a fault at once
        overrides if place % 3 == 0 else pytest.param(overrides, marks=pytest.mark.slow)
        for place, overrides in enumerate(SWEEPS)
    ],
    ids=map(" ".join, SWEEPS),
)
def test_points_are_composed_as_by_hydra_in_any_order(overrides: list[str]) -> None:
    sweep = Sweep.of(overrides, multirun=True)
    points, composer = list(sweep.points()), Composer(sweep.fixed)
    assert len(points) > 1
    for point in (*points, *reversed(points)):
        assert at(composer, point) == reference(*sweep.fixed, *point)


VISITED = [
    (),
    ("estimators.ema.beta=0.9",),
    ("estimators.ema.beta=0.9", "estimators.ema.beta=0.8", "estimators.ema.initial=null"),
    ("estimators.kalman.q=1e-4", "estimators.kalman.r=2"),
    ("estimators.kalman.q=${stream.r}",),
    ("stream.noise_variance=3", "estimators.debiased_ema.beta=0.5"),
    ("stream.noise_variance=null",),
    ("stream.domain=weight", "stream.degrees_of_freedom=4"),
    ("match=delay", "burn_in=7"),
    ("tune=rmse", "root_seed=4"),
    ("match=none", "tune=none", "burn_in=null"),
    ("stream=step", "stream.r=4"),
    ("stream.noise_variance=1", "stream=step"),
    ("estimators=[kalman]", "estimators.kalman.variance=1"),
    ("+estimators.slow={kind: ema, beta: 0.999}", "estimators.ema.beta=0.5"),
    ("~estimators.ema",),
    # refused: a type, a key, a choice, each after values that are fine
    ("estimators.ema.beta=0.7", "estimators.moving_average.window=abc"),
    ("stream.noise_variance=2", "estimators.ema.bta=1"),
    ("stream.domain=ratio", "stream.domain=foo"),
    ("stream.steps=50", "stream.r=null"),
    ("estimators.kalman.q=3", "estimators.kalman.q=[1]"),
    ("burn_in=9", "root_seed=abc"),
    ("tune=rmse", "match=foo"),
    ("estimators.ema.beta=0.1", "root_sed=1"),
    ("estimators.ema.beta=0.2", "estimators.emma.beta=0.5"),
    ("root_seed=2", "burn_in=${nothing}"),
    ("stream=foo", "burn_in=2"),
]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.sampled_from(VISITED), max_size=8))
def test_a_point_does_not_depend_on_those_before_it(order: list[tuple[str, ...]]) -> None:
    composer = Composer(())
    assert [at(composer, point) for point in order] == [reference(*point) for point in order]


@pytest.mark.parametrize("point", VISITED[16:], ids=" ".join)
def test_a_point_that_fails_says_what_hydra_says_and_leaves_nothing(point: tuple[str, ...]) -> None:
    composer, after = Composer(()), ("estimators.debiased_ema.beta=0.25",)
    message = at(composer, point)
    assert isinstance(message, str)
    assert message == reference(*point)
    assert at(composer, after) == reference(*after)


@pytest.mark.parametrize("whole", ["null", "5", "{beta: 0.5}", "${estimators.debiased_ema}"])
def test_a_whole_row_that_was_replaced_comes_back_with_its_types(whole: str) -> None:
    composer = Composer(())
    visited = [f"estimators.ema={whole}", "estimators.ema.beta=abc", "estimators.ema.bta=1"]
    for point in (*visited, "estimators.ema.beta=0.5", *visited):
        assert at(composer, (point,)) == reference(point)


@pytest.mark.parametrize(
    "point",
    [
        ("~estimators.ema", "estimators.ema.beta=0.2"),
        ("estimators.ema.beta=0.2", "~estimators.ema"),
        ("estimators=[kalman]", "estimators.ema.beta=0.2"),
        ("estimators.ema=${estimators.debiased_ema}", "estimators.ema.beta=0.9"),
        ("stream.kind.x=5",),
        ("experiment.sweep=5",),
    ],
    ids=" ".join,
)
def test_settings_of_what_is_not_there_are_neither_made_nor_left(point: tuple[str, ...]) -> None:
    composer = Composer(())
    for visited in (point, (), point):
        assert at(composer, visited) == reference(*visited)


def test_what_is_set_by_hand_is_taken_back_too() -> None:
    composer = Composer(())
    with composer.at(("stream.r=2",)) as composed:
        before = exact(composed.config)
        composed.set("stream.noise_variance", 3.0)
        composed.set("burn_in", 12)
        composed.set("burn_in", 13)
        assert (composed.config.burn_in, composed.config.estimators.kalman.r) == (13, 3.0)
        composed.take_back()
        assert (composed.config.burn_in, composed.config.stream.r) == (None, 1.7956)
    assert before == reference("stream.r=2")[0]
    assert at(composer, ("stream.r=2",)) == reference("stream.r=2")


def test_what_a_point_resolves_is_its_own() -> None:
    composer = Composer(())
    for r in (2.0, None, 3.0, None):
        with composer.at(() if r is None else (f"stream.r={r}",)) as composed:
            assert composed.resolved("stream")["r"] == (1.7956 if r is None else r)


def test_a_kalman_follows_the_noise_of_each_point() -> None:
    composer = Composer(())
    for noise in (1.0, 99.0, 2.5, 1.0):
        with composer.at((f"stream.noise_variance={noise}",)) as composed:
            row = config.resolved(composed.config, "estimators.kalman")
        assert (row["q"], row["r"]) == (noise / 9900, noise)


@pytest.mark.parametrize(
    "overrides",
    [
        ["stream=ramp,step", "seeds=3", "estimators.ema.beta=range(0.1,0.5,0.2)"],
        ["seeds=3", "~estimators.ema", "stream.domain=ratio", "estimators.kalman.q=1e-5,1e-4"],
        ["+estimators.slow={kind: ema, beta: 0.999},{kind: ema, beta: 1e-3}", "match=none,delay"],
        ["stream=recorded", r"stream.path='a b','it\'s',c", "stream.column=null,true,'1',x"],
        ["estimators=[ema],[kalman,ema]", "stream.steps=1_000,2000", "root_seed=1", "root_seed=1,2"],
        ["estimators.ema.beta=choice(0.1,0.2)", "estimators.ema.initial=sort(3,1,2)", "burn_in=1"],
        ["seeds=3"],
    ],
    ids=" ".join,
)
def test_points_are_those_of_hydras_own_sweeper_in_its_order(overrides: list[str]) -> None:
    sweep = Sweep.of(overrides, multirun=True)

    def normal(texts: Sequence[str]) -> set[str]:
        return {f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in config.parsed(texts)}

    (batch,) = BasicSweeper.split_arguments(config.parsed(overrides), None)
    assert [normal([*sweep.fixed, *point]) for point in sweep.points()] == [normal(job) for job in batch]


# --- axes from YAML -----------------------------------------------------------------------------------------


@pytest.fixture
def yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yaml:
    """Give the experiment ``idle`` a sweep of its own, as YAML."""
    home = tmp_path / "conf"
    shutil.copytree(config.folder(), home)
    monkeypatch.setattr(config, "folder", lambda: home)

    def write(sweep: str) -> None:
        text = f"# Idle.\ndefaults: [schema/idle@_here_, _self_]\nsweep: {sweep}\n"
        (home / "experiment" / "idle.yaml").write_text(text, encoding="utf-8")

    return write


@pytest.mark.slow
def test_a_grid_in_yaml_is_swept_all_with_all_then_what_goes_together(yaml: Yaml) -> None:
    yaml(
        "{grid: {estimators.ema.beta: [0.9, 0.99], stream: [step, ramp]},"
        " zip: [{stream.steps: [100, 200], root_seed: [1, 2]}], repetitions: 7}"
    )
    found = Sweep.of(["experiment=idle"], multirun=False)
    assert found.own == ("estimators.ema.beta", "stream", "stream.steps", "root_seed")
    assert replace(found, own=()) == Sweep(
        ("experiment=idle", "seeds=7"),
        (
            Axis(("estimators.ema.beta",), (("estimators.ema.beta=0.9",), ("estimators.ema.beta=0.99",))),
            Axis(("stream",), (("stream=step",), ("stream=ramp",))),
            Axis(
                ("stream.steps", "root_seed"),
                (("stream.steps=100", "root_seed=1"), ("stream.steps=200", "root_seed=2")),
            ),
        ),
    )
    points = points_of("experiment=idle")
    assert len(points) == 2 * 2 * 2
    assert points[0] == {
        "estimators.ema.beta": "0.9",
        "stream": "step",
        "stream.steps": "100",
        "root_seed": "1",
    }
    assert [point["stream.steps"] for point in points] == ["100", "200"] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "overrides"),
    [
        ("{grid: {estimators: [[ema], [kalman]]}}", ["estimators=[ema],[kalman]"]),
        ("{grid: {estimators.ema.initial: [null, 1.5, -.inf]}}", ["estimators.ema.initial=null,1.5,-inf"]),
        ("{grid: {match: [none, delay]}}", ["match=none,delay"]),
        (
            '{grid: {stream.column: ["it\'s", \'a b\', "x,y", \'1\', \'null\', x, true, "\\\\", "a=b"]}}',
            [r"stream.column='it\'s','a b','x,y','1','null',x,true,'\\','a=b'"],
        ),
        (
            "{grid: {estimators.ema: [{beta: 0.5}, {initial: null}]}}",
            ["estimators.ema={beta:0.5},{initial:null}"],
        ),
        (
            "{grid: {+estimators.slow: [{kind: ema, beta: 0.5}, {kind: ema, beta: 0.6}]}}",
            ["+estimators.slow={kind:ema,beta:0.5},{kind:ema,beta:0.6}"],
        ),
        ("{zip: [{stream.steps: [5, 6]}, {burn_in: [1, 2]}]}", ["stream.steps=5,6", "burn_in=1,2"]),
    ],
)
def test_yaml_says_what_the_command_line_says(yaml: Yaml, sweep: str, overrides: list[str]) -> None:
    def outcomes(sweep: Sweep) -> list[Outcome]:
        composer = Composer(sweep.fixed)
        return [at(composer, point) for point in sweep.points()]

    fixed = ("experiment=idle", "stream=recorded")
    yaml("{}")
    expected = outcomes(Sweep.of([*fixed, *overrides], multirun=True))
    yaml(sweep)
    own = Sweep.of(fixed, multirun=False)
    found = outcomes(own)
    assert Sweep.of(fixed, multirun=True) == own

    def but_for_the_sweep(outcome: Outcome) -> Outcome:
        if isinstance(outcome, str):
            return outcome
        return [line for line in outcome[0] if not line.startswith("experiment.sweep.")], outcome[1]

    assert [*map(but_for_the_sweep, found)] == [*map(but_for_the_sweep, expected)]
    assert len(found) > 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "experiment.sweep.grid={estimators.ema.beta:[0.9,0.99]}",
            [{"estimators.ema.beta": "0.9"}, {"estimators.ema.beta": "0.99"}],
        ),
        (
            "experiment.sweep.zip=[{estimators.ema.beta:[0.9,0.99],estimators.moving_average.window:[19,199]}]",
            [
                {"estimators.ema.beta": "0.9", "estimators.moving_average.window": "19"},
                {"estimators.ema.beta": "0.99", "estimators.moving_average.window": "199"},
            ],
        ),
        ("experiment.sweep.zip=[{}]", [{}]),
    ],
)
def test_the_sweep_of_an_experiment_can_be_given_on_the_command_line(
    override: str, expected: list[dict[str, str]]
) -> None:
    assert points_of(override) == expected


@pytest.mark.slow
def test_repetitions_are_seeds_unless_these_are_given(yaml: Yaml) -> None:
    assert Job.of(["experiment.sweep.repetitions=7"]).setup.seeds == 7
    assert Job.of(["experiment.sweep.repetitions=7", "seeds=3"]).setup.seeds == 3
    yaml("{repetitions: 8}")
    assert Job.of(["experiment=idle"]).setup.seeds == 8
    assert Job.of(["experiment=idle", "seeds=3"]).setup.seeds == 3
    assert Job.of(["experiment=idle", "experiment.sweep.repetitions=null"]).setup.seeds == 100


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stream.s=5", [{"burn_in": "1"}, {"burn_in": "2"}]),
        ("++stream.s=5", [{"burn_in": "1"}, {"burn_in": "2"}]),
        (
            "stream.s=5,6,7",
            [{"burn_in": burn, "stream.s": s} for burn in ("1", "2") for s in ("5", "6", "7")],
        ),
        ("burn_in=3", [{"stream.s": "1"}, {"stream.s": "2"}, {"stream.s": "3"}]),
    ],
)
def test_a_key_on_the_command_line_takes_the_place_of_the_yamls_axis(
    yaml: Yaml, override: str, expected: list[dict[str, str]]
) -> None:
    yaml("{grid: {burn_in: [1, 2], stream.s: [1, 2, 3]}}")
    assert points_of("experiment=idle", override) == expected


def test_a_key_on_the_command_line_leaves_those_it_went_together_with(yaml: Yaml) -> None:
    yaml("{zip: [{stream.s: [1, 2], burn_in: [3, 4]}]}")
    burn_in = [{"burn_in": "3"}, {"burn_in": "4"}]
    assert points_of("experiment=idle", "stream.s=5") == burn_in
    assert points_of("experiment=idle", "stream.s=5", "burn_in=1") == [{}]
    both = [{**point, "stream.s": s} for point in burn_in for s in ("5", "6")]
    assert points_of("experiment=idle", "stream.s=5,6") == both


@pytest.mark.parametrize(
    ("sweep", "parts"),
    [
        (
            "{zip: [{burn_in: [1]}, {stream.steps: [1, 2], root_seed: [1]}]}",
            ["experiment.sweep.zip[1]", "differ in length (stream.steps 2, root_seed 1)"],
        ),
        ("{grid: {stream.steps: 5}}", ["experiment.sweep.grid", "lists of values by key"]),
        ("{grid: {stream.steps: []}}", ["experiment.sweep.grid", "lists of values by key"]),
        ("{zip: [{stream.steps: 5}]}", ["experiment.sweep.zip[0]", "lists of values by key"]),
        ("{zip: [5]}", ["experiment.sweep.zip[0]", "lists of values by key"]),
        ("{grid: {stream.stepz: [1, 2]}}", ["stream has no setting 'stepz'", "did you mean steps?"]),
        ("{grid: {root_sed: [1, 2]}}", ["'root_sed' is not a setting", "did you mean root_seed?"]),
        ("{grid: {estimators.ema.beta: [0.9, abc]}}", ["estimators.ema.beta=abc is not valid", "float"]),
        ("{grid: {estimators.ema.beta: [0.9, [1]]}}", ["estimators.ema.beta=[1] is not valid", "float"]),
        ("{grid: {stream: [step, foo]}}", ["stream=foo is not available", "valid: gradient_ratio"]),
        ("{grid: {seeds: [1, 2]}}", ["seeds cannot be swept"]),
        ("{zip: [{executor.workers: [1, 2]}]}", ["executor.workers cannot be swept"]),
        ("{grid: {output: [a, b]}}", ["output cannot be swept"]),
        ("{grid: {hydra.run.dir: [x]}}", ["hydra.run.dir=x", "no effect"]),
        ("{grid: {a b: [1]}}", ["cannot read 'a b=1'"]),
        ("{grids: {burn_in: [1]}}", ["experiment", "grids"]),
        ("{grid: [1]}", ["experiment", "grid"]),
        ("{zip: {burn_in: [1]}}", ["experiment", "zip"]),
        ("{repetitions: few}", ["experiment", "repetitions", "few"]),
        ("{repetitions: 0}", ["seeds=0 is not valid"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_yamls_sweep_is_one_line_that_names_the_place(
    yaml: Yaml, sweep: str, parts: list[str]
) -> None:
    yaml(sweep)
    message = refusal("experiment=idle")
    for part in parts:
        assert part in message, message


# --- what cannot be swept -----------------------------------------------------------------------------------


MORE_SEEDS = "more seeds are a longer sweep, not another one: give the largest"
HOW_IT_RUNS = "how a sweep runs changes no number"
ONE_EXPERIMENT = "a sweep is of one experiment; give the command once for each"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=1,2", f"seeds cannot be swept; {MORE_SEEDS}"),
        ("seeds=range(1,4)", f"seeds cannot be swept; {MORE_SEEDS}"),
        ("output=a,b", "output cannot be swept; all points of a sweep go to one folder"),
        ("executor=local,ray", f"executor cannot be swept; {HOW_IT_RUNS}"),
        ("executor=glob(*)", f"executor cannot be swept; {HOW_IT_RUNS}"),
        ("executor.workers=1,2", f"executor.workers cannot be swept; {HOW_IT_RUNS}"),
        ("experiment=compare,idle", f"experiment cannot be swept; {ONE_EXPERIMENT}"),
        (
            "stream.r=interval(0,1)",
            "stream.r=interval(0,1) has no end; write stream.r=1,2 or stream.r=range(1,4)",
        ),
        ("stream=glob(z*)", f"stream=glob(z*) matches nothing; valid: {', '.join(config.options('stream'))}"),
        ("stream.r=glob(*)", "stream.r=glob(*): glob() chooses among a group's names; stream.r is no group"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_says_why(refused: Refused, override: str, message: str) -> None:
    assert refused("-m", override) == message
    assert refused("root_seed=1,2", "--multirun", override) == message


@pytest.mark.parametrize(
    "override",
    [
        "++seeds=1,2",
        "++output=a,b",
        "++executor.workers=1,2",
        "experiment.name=compare,idle",
        "experiment.sweep.repetitions=1,2",
    ],
)
def test_what_cannot_be_swept_cannot_be_swept_in_other_words(override: str) -> None:
    assert "cannot be swept" in refusal(override)


@pytest.mark.parametrize(
    "override", ["seeds=1,2", "stream=ramp,step", "stream=glob(*)", "stream.r=range(1,3)"]
)
def test_several_values_need_an_option(refused: Refused, override: str) -> None:
    several = f"{override} names several values; give one, a list as key=[a,b], or -m for each"
    assert refused(override) == several
    assert refused("burn_in=1", override, "estimators.ema.beta=0.9,0.8") == several


@pytest.mark.parametrize(
    ("swept", "single"),
    [
        ("estimators.ema.beta=0.9,abc", "estimators.ema.beta=abc"),
        ("estimators.ema.bta=0.9,0.99", "estimators.ema.bta=0.9"),
        ("estimators.emma.beta=0.9,0.99", "estimators.emma.beta=0.9"),
        ("estimators.ema.beta=0.9,1", "estimators.ema.beta=1"),
        ("estimators.ema.beta=0.9,null", "estimators.ema.beta=null"),
        ("estimators.ema.beta=0.9,[0.9]", "estimators.ema.beta=[0.9]"),
        ("estimators.ema.beta=0.9,${nothing}", "estimators.ema.beta=${nothing}"),
        ("estimators.moving_average.window=2,2.5", "estimators.moving_average.window=2.5"),
        ("estimators=[ema],[emma]", "estimators=[emma]"),
        ("estimators=[ema],[]", "estimators=[]"),
        ("estimators=[ema],[5]", "estimators=[5]"),
        ("estimators.ema={beta: 0.5},5", "estimators.ema=5"),
        ("+estimators.slow={kind: ema, beta: 0.5},{kind: emma}", "+estimators.slow={kind: emma}"),
        ("stream=gradient_ratio,foo", "stream=foo"),
        ("stream=gradient_ratio,null", "stream=null"),
        ("stream=gradient_ratio,[step]", "stream=[step]"),
        ("stream.steps=5,0", "stream.steps=0"),
        ("stream.domain=ratio,foo", "stream.domain=foo"),
        ("stream.path=a,b", "stream.path=a"),
        ("root_seed=0,abc", "root_seed=abc"),
        ("root_seed=0,1.5", "root_seed=1.5"),
        ("root_seed=0,-1", "root_seed=-1"),
        ("root_seed=0,null", "root_seed=null"),
        ("burn_in=5,abc", "burn_in=abc"),
        ("burn_in=5,100000", "burn_in=100000"),
        ("match=none,foo", "match=foo"),
        ("match=delay,null", "match=null"),
        ("tune=none,foo", "tune=foo"),
        ("root_sed=0,1", "root_sed=0"),
        ("+root_sed=0,1", "+root_sed=0"),
        ("foo.bar=1,2", "foo.bar=1"),
        ("estimators/ema=a,b", "estimators/ema=a"),
    ],
)  # fmt: skip
def test_one_value_that_does_not_fit_is_refused_like_a_run_of_it_alone(swept: str, single: str) -> None:
    assert refusal(swept) == refusal(single, multirun=False)


def test_whole_commands_are_refused_like_a_run_of_the_value_alone(refused: Refused) -> None:
    for swept, single in (
        ("estimators.ema.beta=0.9,abc", "estimators.ema.beta=abc"),
        ("estimators.ema.bta=0.9,0.99", "estimators.ema.bta=0.9"),
        ("stream=gradient_ratio,foo", "stream=foo"),
    ):
        assert refused("-m", swept) == refused(single)


@pytest.mark.parametrize("left", ["~estimators.ema", "estimators=[kalman]"])
def test_settings_of_a_row_that_was_left_out_are_refused(left: str) -> None:
    alone = refusal(left, "estimators.ema.beta=0.9", multirun=False)
    assert alone.startswith("estimators has no setting 'ema'; ")
    assert refusal(left, "estimators.ema.beta=0.9,0.99") == alone


def test_match_and_tune_exclude_each_other_at_any_point() -> None:
    assert "exclude each other" in refusal("match=delay", "tune=none,rmse")
    assert "exclude each other" in refusal("match=none,delay", "tune=rmse")


@pytest.mark.slow
def test_an_experiment_without_cells_is_not_swept(refused: Refused) -> None:
    message = "experiment=response has no cells to sweep; leave out -m"
    assert refused("experiment=response", "-m", "root_seed=1,2") == message
    assert refused("experiment=response", "experiment.sweep.zip=[{root_seed:[1,2]}]") == message
    assert len(Job.of(["experiment=response"], multirun=True).points) == 1


# --- jobs ---------------------------------------------------------------------------------------------------


def test_nothing_swept_is_one_point_with_or_without_the_option() -> None:
    single, several = Job.of(["seeds=3"]), Job.of(["seeds=3"], multirun=True)
    assert several.points == single.points
    assert [(point.stream, point.swept) for point in single.points] == [("gradient_ratio", {})]
    assert several.text == single.text
    assert several.folder.path == single.folder.path


def test_the_points_of_a_job_are_the_setups_of_single_runs() -> None:
    job = Job.of(
        [
            "estimators=[ema,kalman]",
            "stream=gradient_ratio,step",
            "estimators.ema.beta=0.9,0.8",
            "burn_in=5,null",
        ],
        multirun=True,
    )
    assert len(job.points) == 8
    for point in job.points:
        chosen = [f"{key}={value}" for key, value in point.swept.items()]
        alone = Job.of(["estimators=[ema,kalman]", *chosen]).setup
        assert point.setup == alone
        assert repr(point.setup) == repr(alone)  # an enum, not its text
    assert job.setup is job.points[0].setup
    assert [list(point.swept.values()) for point in job.points[:3]] == [
        ["gradient_ratio", "0.9", "5"],
        ["gradient_ratio", "0.9", "null"],
        ["gradient_ratio", "0.8", "5"],
    ]


def test_match_and_tune_of_a_point_are_what_a_single_run_has() -> None:
    matches = Job.of(["match=none,noise_gain"], multirun=True).points
    assert all(type(point.setup.match) is Match for point in matches)
    assert [point.setup.match for point in matches] == [Match.none, Match.noise_gain]
    tunes = Job.of(["tune=none,rmse"], multirun=True).points
    assert all(type(point.setup.tune) is Tune for point in tunes)
    assert [point.setup.tune for point in tunes] == [Tune.none, Tune.rmse]


@pytest.mark.parametrize(
    ("overrides", "labels"),
    [
        (["stream.s=0.001,1e-2"], ["gradient_ratio s=0.001", "gradient_ratio s=0.01"]),
        (["stream=step,ramp"], ["step", "ramp"]),
        (["estimators.ema.beta=0.9,0.8"], ["gradient_ratio"] * 2),
        (["estimators=[ema],[kalman]"], ["gradient_ratio"] * 2),
        (
            ["+estimators.slow={kind: ema, beta: 0.9},{kind: ema, beta: 0.8}"],
            ["gradient_ratio"] * 2,
        ),
        (["++estimators.ema.beta=0.9,0.8"], ["gradient_ratio"] * 2),
        (["++stream.s=1,2"], ["gradient_ratio s=1", "gradient_ratio s=2"]),
        (
            ["root_seed=0,1", "stream=step", "stream.r=2,3", "estimators.ema.beta=0.9"],
            ["step root_seed=0 r=2", "step root_seed=0 r=3", "step root_seed=1 r=2", "step root_seed=1 r=3"],
        ),
        (["match=none,delay"], ["gradient_ratio match=none", "gradient_ratio match=delay"]),
        (["stream.noise_variance=null,3"], [f"gradient_ratio noise_variance={n}" for n in ("null", 3)]),
        (
            ["experiment=idle", "experiment.seconds=0,1"],
            ["gradient_ratio experiment.seconds=0", "gradient_ratio experiment.seconds=1"],
        ),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)  # fmt: skip
def test_a_point_is_told_by_its_stream_and_what_was_swept_of_it(
    overrides: list[str], labels: list[str]
) -> None:
    assert [point.stream for point in Job.of(overrides, multirun=True).points] == labels


def test_noise_and_burn_in_left_to_the_stream_are_found_anew_for_each_point() -> None:
    job = Job.of(
        ["estimators=[kalman]", "stream=gradient_ratio", "stream.r=2,3", "stream.steps=40,8000"],
        multirun=True,
    )
    found = [(p.setup.noise_variance, p.setup.burn_in, p.setup.estimators["kalman"]) for p in job.points]
    assert found == [(r, burn_in, Kalman(q=r / 9900, r=r)) for r in (2.0, 3.0) for burn_in in (10, 1000)]


def test_a_sweeps_text_is_what_its_points_share_as_it_is_written_and_its_axes() -> None:
    job = Job.of(["seeds=3", "stream=step,ramp", "estimators.ema.beta=0.9,0.8"], multirun=True)
    read = OmegaConf.create(job.text)
    assert (read.seeds, read.stream.kind, read.estimators.ema.beta) == (3, "gradient_ratio", 0.99)
    assert "q: ${divide:${stream.noise_variance},9900}" in job.text
    assert read.experiment.sweep is None
    axes = [{"stream": ["step", "ramp"]}, {"estimators.ema.beta": ["0.9", "0.8"]}]
    assert OmegaConf.to_container(read.swept) == axes


def test_the_order_of_a_sweep_names_its_folder_and_the_way_it_is_written_does_not() -> None:
    def folder(*overrides: str) -> Path:
        return Job.of(overrides, multirun=True).folder.path

    assert folder("stream.s=1e-3,1e-2") == folder("stream.s=0.001,0.01", "executor.workers=0")
    assert folder("stream.s=1e-3,1e-2") != folder("stream.s=1e-2,1e-3")


def test_recorded_files_are_read_once_for_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path, *columns: str | None) -> Any:
        read.append(path)
        return read_series(path, *columns)

    monkeypatch.setattr("experiments.recorded.read_series", counted)
    overrides = ["stream=recorded", "estimators.ema.beta=range(0.5,0.75,0.01)", "burn_in=5,10"]
    job = Job.of(overrides, multirun=True)
    assert len(job.points) == 50
    assert len(read) == len(set(read)) == 3
    assert len({id(point.setup.stream) for point in job.points}) == 1
    assert len({point.setup.noise_variance for point in job.points}) == 1


@pytest.mark.parametrize(
    ("overrides", "compositions"),
    [
        (["estimators.kalman.q=range(1,101)", "stream.domain=ratio,weight"], 3),
        (
            ["stream=gradient_ratio,step", "estimators.kalman.q=range(1,51)", "stream.noise_variance=1,null"],
            4,
        ),
        (["root_seed=range(0,50)", "match=none,noise_gain,delay,mse", "estimators=[ema]"], 5),
    ],
)
def test_many_points_are_composed_by_hydra_a_few_times(
    overrides: list[str], compositions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[str]] = []
    real = config.composed

    def counted(overrides: Sequence[str]) -> tuple[DictConfig, str]:
        calls.append(overrides)
        return real(overrides)

    monkeypatch.setattr(config, "composed", counted)
    assert len(Job.of(overrides, multirun=True).points) == 200
    assert len(calls) <= compositions


# --- panels -------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., list[Panel]]:
    """The panels of a sweep on short streams, with three seeds and nothing run but tunings."""

    def plan(*overrides: str) -> list[Panel]:
        given = [*({"seeds=3", "stream.steps=200"} if "stream=recorded" not in overrides else ()), *overrides]
        runs = Runs(Store(tmp_path), Local(workers=0), said.append)
        return panels(Job.of(given, multirun=True).points, idle.measure, runs)

    said: list[str] = []
    return plan


Planned = Callable[..., list[Panel]]


def cells(found: Sequence[Panel]) -> tuple[int, int]:
    """Cells that panels show, and those that are wanted for them."""
    return sum(panel.cells for panel in found), sum(one.cells for one in wanted(found))


def test_settings_that_are_swept_are_rows_of_one_panel_those_of_a_name_together(planned: Planned) -> None:
    (panel,) = found = planned(
        "estimators=[ema,moving_average,debiased_ema]",
        "estimators.moving_average.window=3,5",
        "estimators.ema.beta=0.5,0.9",
    )
    assert list(panel.rows) == [
        ("ema", "beta=0.5"),
        ("ema", "beta=0.9"),
        ("moving_average", "window=3"),
        ("moving_average", "window=5"),
        ("debiased_ema", "beta=0.99"),
    ]
    assert [row.estimator for row in panel.rows.values()] == [
        EMA(0.5),
        EMA(0.9),
        MovingAverage(3),
        MovingAverage(5),
        DebiasedEMA(0.99),
    ]
    assert list(panel.estimators()) == [
        "ema (beta=0.5)",
        "ema (beta=0.9)",
        "moving_average (window=3)",
        "moving_average (window=5)",
        "debiased_ema",
    ]
    assert (panel.stream, panel.chosen, panel.repetitions) == ("gradient_ratio", [""], 3)
    assert cells(found) == (15, 15)


def test_the_first_setting_of_the_first_point_is_the_baseline(planned: Planned) -> None:
    (panel,) = planned("estimators=[kalman,ema],[ema,kalman]", "estimators.ema.beta=0.9,0.5")
    assert [name for name, _ in panel.rows] == ["kalman", "ema", "ema"]
    (panel,) = planned("estimators=[ema],[moving_average,ema]", "estimators.ema.beta=0.9")
    assert list(panel.rows) == [("ema", "beta=0.9"), ("moving_average", "window=199")]


def test_rows_that_are_swept_by_being_added_stand_in_one_panel(planned: Planned) -> None:
    (panel,) = found = planned(
        "estimators=[ema]", "+estimators.slow={kind: ema, beta: 0.9},{kind: ema, beta: 0.8}"
    )
    assert list(panel.rows) == [("ema", "beta=0.99"), ("slow", "ema beta=0.9"), ("slow", "ema beta=0.8")]
    assert cells(found) == (9, 9)


def test_each_stream_is_a_panel_in_the_order_of_the_sweep(planned: Planned) -> None:
    found = planned("estimators=[ema]", "stream=step,ramp", "stream.r=1,2", "estimators.ema.beta=0.5,0.9")
    assert [panel.stream for panel in found] == ["step r=1", "step r=2", "ramp r=1", "ramp r=2"]
    assert all(list(panel.rows) == [("ema", "beta=0.5"), ("ema", "beta=0.9")] for panel in found)
    assert [panel.swept["stream.r"] for panel in found] == ["1", "2", "1", "2"]
    assert len({panel.condition.key for panel in found}) == 4
    assert cells(found) == (24, 24)


def test_the_same_settings_under_two_names_share_their_cells(planned: Planned) -> None:
    (panel,) = found = planned(
        "estimators=[ema]", "+estimators.twin={kind: ema, beta: 0.9}", "estimators.ema.beta=0.9,0.8"
    )
    assert list(panel.rows) == [("ema", "beta=0.9"), ("ema", "beta=0.8"), ("twin", "ema beta=0.9")]
    assert cells(found) == (9, 6)


def test_points_of_equal_settings_are_one_row(planned: Planned) -> None:
    (panel,) = found = planned("estimators=[ema]", "estimators.ema.beta=0.9,0.90")
    assert list(panel.rows) == [("ema", "beta=0.9")]
    assert cells(found) == (3, 3)


def test_a_filter_that_is_told_otherwise_is_another_panel(planned: Planned) -> None:
    found = planned("estimators=[kalman]", "stream.noise_variance=1,2")
    assert [panel.stream for panel in found] == [f"gradient_ratio noise_variance={n}" for n in (1, 2)]
    assert cells(found) == (6, 6)


def test_no_more_repetitions_are_planned_than_were_recorded(planned: Planned) -> None:
    found = planned("stream=recorded", "estimators=[ema]", "estimators.ema.beta=0.9,0.8")
    assert cells(found) == (6, 6)


def test_a_fixed_match_holds_at_each_setting_that_is_swept(planned: Planned) -> None:
    (panel,) = found = planned(
        "match=noise_gain", "estimators=[ema,moving_average]", "estimators.ema.beta=0.9,0.5"
    )
    assert panel.chosen == [panel.how] == ["matched to ema by noise gain"]
    assert list(panel.rows) == [
        ("ema", "beta=0.9"),
        ("ema", "beta=0.5"),
        ("moving_average", "window=19"),
        ("moving_average", "window=3"),
    ]
    assert cells(found) == (12, 12)


def test_a_match_that_is_swept_is_a_panel_each_with_the_cells_they_share(planned: Planned) -> None:
    as_given, matched = found = planned(
        "match=none,noise_gain", "estimators=[ema,moving_average]", "estimators.ema.beta=0.9"
    )
    assert (as_given.stream, as_given.chosen) == ("gradient_ratio match=none", [""])
    assert matched.chosen == ["matched to ema by noise gain"]
    assert list(as_given.rows) == [("ema", "beta=0.9"), ("moving_average", "window=199")]
    assert list(matched.rows) == [("ema", "beta=0.9"), ("moving_average", "window=19")]
    assert as_given.condition.key == matched.condition.key
    assert cells(found) == (12, 9)


def test_a_fixed_tune_replaces_what_is_swept_of_the_memory(planned: Planned) -> None:
    (panel,) = found = planned(
        "tune=rmse",
        "stream=step",
        "estimators=[ema]",
        "estimators.ema.beta=0.9,0.5",
        "estimators.ema.initial=0,1",
    )
    assert panel.how.startswith("tuned: 49 noise gains each, on rmse over 20 streams of other seeds")
    tuned: list[Any] = [row.estimator for row in panel.rows.values()]
    assert [estimator.initial for estimator in tuned] == [0.0, 1.0]
    assert not {estimator.beta for estimator in tuned} & {0.9, 0.5}
    assert cells(found) == (6, 6)


def test_a_tune_that_is_swept_is_a_panel_each(planned: Planned) -> None:
    as_given, tuned = found = planned("tune=none,rmse", "stream=step", "estimators=[ema,moving_average]")
    assert (as_given.stream, as_given.chosen) == ("step tune=none", [""])
    assert list(as_given.rows) == [("ema", "beta=0.99"), ("moving_average", "window=199")]
    assert tuned.stream == "step tune=rmse"
    assert tuned.how.startswith("tuned: ")
    assert [name for name, _ in tuned.rows] == ["ema", "moving_average"]
    assert not set(tuned.rows) & set(as_given.rows)
    assert cells(found) == (12, 12)


def test_what_cannot_be_tuned_or_matched_is_refused_before_anything_is_run(
    planned: Planned, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^estimators\.kalman: no setting matches EMA\(beta=0\.0\) by"):
        planned("match=noise_gain", "estimators=[ema,kalman]", "estimators.ema.beta=0.9,0")
    assert not (tmp_path / "cells").exists()
