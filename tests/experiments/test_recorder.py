from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import recorder

SHIPPED = Path(__file__).parents[2] / "results" / "recordings"
COLUMNS = ["step", "classification_norm", "regression_norm", "classification_loss", "regression_loss"]
NAMES = [f"digits_b{batch}_seed{seed}.csv.gz" for batch in (8, 64, 256) for seed in (0, 1, 2)]


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("sklearn", reason="recording needs the extra 'training': scikit-learn is absent")
    return pytest.importorskip("torch", reason="recording needs the extra 'training': torch is absent")


def reference_run(batch: Any, network: Any, steps: int) -> list[tuple[float, float, float, float]]:
    """Forward, backward and Adam by hand in float64, on the same images at every step."""
    x, labels, ink = batch.pixels.astype(float), batch.labels, batch.ink.astype(float)
    n = len(x)
    modules = (*network.trunk, network.classification_head, network.regression_head)
    w = [p.detach().numpy().astype(float) for module in modules for p in module.parameters()]
    first, second = [np.zeros_like(p) for p in w], [np.zeros_like(p) for p in w]
    rows = []
    for t in range(1, steps + 1):
        a = x @ w[0].T + w[1]
        h = np.maximum(a, 0)
        b = h @ w[2].T + w[3]
        z = np.maximum(b, 0)
        logits = z @ w[4].T + w[5]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        error = (z @ w[6].T + w[7])[:, 0] - ink
        d_logits = (p - np.eye(10)[labels]) / n
        d_ink = 2 * error[:, None] / n

        def trunk(d_out: Any, head: Any, b: Any = b, a: Any = a, h: Any = h) -> list[Any]:
            d_b = (d_out @ head) * (b > 0)
            d_a = (d_b @ w[2]) * (a > 0)
            return [d_a.T @ x, d_a.sum(0), d_b.T @ h, d_b.sum(0)]

        one, two = trunk(d_logits, w[4]), trunk(d_ink, w[6])
        rows.append(
            (
                np.sqrt(sum((g**2).sum() for g in one)),
                np.sqrt(sum((g**2).sum() for g in two)),
                -np.log(p[np.arange(n), labels]).mean(),
                (error**2).mean(),
            )
        )
        summed = [g + k for g, k in zip(one, two, strict=True)]
        for i, g in enumerate([*summed, d_logits.T @ z, d_logits.sum(0), d_ink.T @ z, d_ink.sum(0)]):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            step = (first[i] / (1 - 0.9**t)) / (np.sqrt(second[i] / (1 - 0.999**t)) + 1e-8)
            w[i] = w[i] - 1e-3 * step
    return rows


def tiny_network(torch: Any, dtype: Any) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(5)

    def linear(inputs: int, outputs: int) -> Any:
        layer = torch.nn.Linear(inputs, outputs, dtype=dtype)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
        return layer

    trunk = torch.nn.Sequential(linear(4, 3), torch.nn.Tanh(), linear(3, 2))
    network = recorder.Network(trunk, linear(2, 3), linear(2, 1))
    pixels = torch.randn((6, 4), generator=generator, dtype=dtype)
    ink = torch.randn(6, generator=generator, dtype=dtype)
    return network, (pixels, torch.tensor([0, 1, 2, 2, 1, 0]), ink)


def test_training_set_is_the_whole_of_the_digits(torch: Any) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels, labels, ink = recorder.load_training_set()
    assert pixels.shape == (recorder.TRAINING_SET, 64)
    np.testing.assert_array_equal(labels, bunch.target)
    # Standardised: the correlation with the raw values is 1, the mean 0 and the sd 1.
    for values, raw in ((pixels.ravel(), bunch.data.ravel()), (ink, bunch.images.mean(axis=(1, 2)))):
        assert np.corrcoef(values, raw)[0, 1] == pytest.approx(1, abs=1e-9)
        assert values.mean(dtype=float) == pytest.approx(0, abs=1e-6)
        assert values.std(dtype=float) == pytest.approx(1, abs=1e-6)


def test_record_agrees_with_a_backward_pass_and_adam_by_hand(torch: Any) -> None:
    recording = recorder.record(recorder.TRAINING_SET, seed=3, steps=6)
    expected = reference_run(recorder.load_training_set(), recorder.build_network(3), 6)
    assert list(recording.columns) == COLUMNS
    assert recording["step"].tolist() == list(range(6))
    np.testing.assert_allclose(recording[COLUMNS[1:]].to_numpy(), expected, rtol=1e-4)


def test_task_gradients_agree_with_finite_differences(torch: Any) -> None:
    network, batch = tiny_network(torch, torch.float64)
    for task, result in enumerate(recorder.task_gradients(network, *batch)):
        squares = 0.0
        for parameter, gradient in zip(network.trunk.parameters(), result.trunk, strict=True):
            values, slopes = parameter.data.view(-1), gradient.reshape(-1)
            for i in range(len(values)):
                kept = values[i].item()
                losses = []
                for shift in (1e-6, -1e-6):
                    values[i] = kept + shift
                    losses.append(recorder.task_gradients(network, *batch)[task].loss)
                values[i] = kept
                slope = (losses[0] - losses[1]) / 2e-6
                assert slopes[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)
                squares += slope**2
        assert result.norm == pytest.approx(squares**0.5, rel=1e-7)


def test_task_gradients_work_where_gradients_are_switched_off(torch: Any) -> None:
    network, batch = tiny_network(torch, torch.float64)
    with torch.no_grad():
        inside = recorder.task_gradients(network, *batch)
    assert [task.norm for task in inside] == [task.norm for task in recorder.task_gradients(network, *batch)]


def test_zero_gradient_is_zero_and_tiny_gradient_is_not(torch: Any) -> None:
    network, batch = tiny_network(torch, torch.float32)
    with torch.no_grad():
        network.classification_head.weight.zero_()
        network.regression_head.weight.mul_(1e-30)
    classification, regression = recorder.task_gradients(network, *batch)
    assert classification.norm == 0.0
    assert 0.0 < regression.norm < 1e-27


def test_zero_norm_survives_the_file_and_is_counted(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.ones((8, 5)), columns=COLUMNS)
    frame["regression_norm"] = [1, 1, 1, 1, 2.0, 0.0, 8.0, 2.0]
    frame.loc[7, "classification_norm"] = 0.0
    recorder.save(frame, tmp_path / "zero.csv.gz")
    back = pd.read_csv(tmp_path / "zero.csv.gz")
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    summary = recorder.summarise(back)
    assert (summary.rows, summary.left_out, summary.median_ratio) == (2, 2, 5.0)
    assert np.isnan(summary.sd)


def test_values_that_are_no_numbers_survive_the_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [np.nan, np.inf, -np.inf, np.float64(np.float32(0.1))]})
    recorder.save(frame, tmp_path / "odd.csv.gz")
    assert gzip.decompress((tmp_path / "odd.csv.gz").read_bytes()) == b"a\nnan\ninf\n-inf\n0.100000001\n"


def test_summary_agrees_with_numpy_scipy_and_pandas() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=601)
    log_ratio = 0.3 + 0.002 * np.arange(600) + noise[1:] + 0.5 * noise[:-1]
    frame = pd.DataFrame(
        {"classification_norm": np.full(600, 2.0), "regression_norm": 2.0 * np.exp(log_ratio)},
    )
    late, time = log_ratio[300:], np.arange(300)
    residual = late - np.polyval(np.polyfit(time, late, 1), time)
    summary = recorder.summarise(frame)
    assert summary == pytest.approx(
        recorder.Summary(
            rows=300,
            left_out=0,
            sd=np.sqrt((residual**2).sum() / 298),
            lag1=(residual[1:] * residual[:-1]).sum() / (residual**2).sum(),
            skew=stats.skew(residual),
            excess_kurtosis=stats.kurtosis(residual),
            median_ratio=np.median(np.exp(late)),
            excess_kurtosis_raw=stats.kurtosis(np.exp(late)),
        ),
        rel=1e-9,
    )


def test_command_writes_the_same_bytes_twice(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--batch-size", "4", "16", "4", "--seeds", "0", "7", "--steps", "12", "--output"]
    folders = [tmp_path / "first", tmp_path / "second" / "deep"]
    for folder in folders:
        assert recorder.main([*arguments, str(folder)]) == 0
        out, err = capsys.readouterr()
        assert not err
        lines = out.splitlines()
        names = [f"digits_b{batch}_seed{seed}.csv.gz" for batch in (4, 16) for seed in (0, 7)]
        assert [line.split(": ")[0] for line in lines] == [str(folder / name) for name in names]
        assert all(re.search(r"log-ratio sd \d+\.\d{3}, median ratio \d+\.\d{3}$", line) for line in lines)
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert len(set(contents[0].values())) == 4
    for data in contents[0].values():
        assert data[3] == 0, "the header holds no name"
        assert data[4:8] == bytes(4), "the header holds no time"


def test_longer_recording_begins_like_a_shorter_one(torch: Any) -> None:
    short, long = recorder.record(8, 1, 5), recorder.record(8, 1, 9)
    pd.testing.assert_frame_equal(short, long.iloc[:5], check_exact=True)


def test_nothing_global_changes(torch: Any) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            before = torch.get_rng_state()
            legacy = np.random.get_state()  # noqa: NPY002
            first = recorder.record(8, 0, 3)
            assert torch.equal(torch.get_rng_state(), before)
            np.testing.assert_equal(np.random.get_state(), legacy)  # noqa: NPY002
            assert torch.get_num_threads() == 2
            torch.manual_seed(12)
            pd.testing.assert_frame_equal(recorder.record(8, 0, 3), first, check_exact=True)
    finally:
        torch.set_num_threads(threads)


def test_interruption_leaves_only_complete_files(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, calls = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    arguments = ["--batch-size", "4", "--seeds", "0", "1", "2", "--steps", "4", "--output", str(tmp_path)]
    assert recorder.main(arguments) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["digits_b4_seed0.csv.gz"]
    assert len(pd.read_csv(tmp_path / "digits_b4_seed0.csv.gz")) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_unwritable_file_gets_one_line(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "digits_b4_seed0.csv.gz"
    target.mkdir()
    arguments = ["--batch-size", "4", "--seeds", "0", "--steps", "4", "--output", str(tmp_path)]
    assert recorder.main(arguments) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("--output: ")
    assert str(target) in err
    assert list(tmp_path.iterdir()) == [target]


def test_failed_write_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": [1.0]})
    path = tmp_path / "kept.csv.gz"
    recorder.save(frame, path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        recorder.save(frame * 2, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    recorder.save(pd.DataFrame({"a": [1.0]}), tmp_path / "recording.csv.gz")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "recording.csv.gz").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("option", "value", "valid"),
    [
        ("--batch-size", "0", "from 1 to 1797"),
        ("--batch-size", "1798", "from 1 to 1797"),
        ("--batch-size", "8.5", "from 1 to 1797"),
        ("--steps", "0", "1 or more"),
        ("--steps", "-3", "1 or more"),
        ("--steps", "many", "1 or more"),
        ("--steps", "two\nlines", "1 or more"),
        ("--seeds", "-1", "0 or more"),
        ("--seeds", "", "0 or more"),
        ("--output", "", "a folder"),
        ("--output", "FILE", "a folder"),
        ("--output", "FILE/below", "a folder"),
        ("--output", "nul\0byte", "a folder"),
    ],
)
def test_bad_argument_gets_one_line(
    option: str, value: str, valid: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("taken")
    value = value.replace("FILE", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as stopped:
        recorder.main([option, value])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert not out
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.startswith(f"{option}: got {value!r}; valid: ")
    assert valid in err


@pytest.mark.parametrize("arguments", [["--step", "4"], ["--seeds"], ["8"], ["--unknown"]])
def test_unknown_usage_gets_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        recorder.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1), "batch_size: got 0; valid: a whole number from 1 to 1797"),
        ((1798, 0, 1), "batch_size: got 1798; valid: a whole number from 1 to 1797"),
        ((8, -1, 1), "seed: got -1; valid: a whole number, 0 or more"),
        ((8, 0, 0), "steps: got 0; valid: a whole number, 1 or more"),
    ],
)
def test_record_refuses_settings_out_of_range(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        recorder.record(*arguments)


def test_record_refuses_fractions() -> None:
    with pytest.raises(TypeError):
        recorder.record(8, 0, 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", ["torch", "sklearn"])
def test_absent_extra_gets_one_line(absent: str, tmp_path: Path) -> None:
    if absent == "sklearn":
        pytest.importorskip("torch", reason="torch is absent too, and is named first")
    code = (
        f"import sys; sys.modules[{absent!r}] = None; from experiments.recorder import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "--steps", "3", "--output", str(tmp_path / "new")],
        cwd=SHIPPED.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert absent in done.stderr
    assert "pip install 'kalmean[training]'" in done.stderr
    assert not (tmp_path / "new").exists()


def test_importing_the_module_does_not_import_the_extra() -> None:
    code = (
        "import sys, experiments.recorder as r; r.main(['--help'])"
        " if 'torch' not in sys.modules and 'sklearn' not in sys.modules else sys.exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SHIPPED.parents[1], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--batch-size", "--seeds", "--steps", "--output"):
        assert option in done.stdout


def test_shipped_recordings_are_nine_and_small() -> None:
    assert sorted(path.name for path in SHIPPED.iterdir()) == sorted([*NAMES, "README.md"])
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recording_is_what_the_readme_says(name: str) -> None:
    recording = pd.read_csv(SHIPPED / name)
    assert list(recording.columns) == COLUMNS
    np.testing.assert_array_equal(recording["step"], np.arange(2000))
    values = recording[COLUMNS[1:]].to_numpy()
    assert np.isfinite(values).all()
    assert (values > 0).all()

    summary = recorder.summarise(recording)
    assert (summary.rows, summary.left_out) == (1000, 0)
    batch, seed = re.findall(r"\d+", name)
    # The earlier measurement gave 1.27-1.41, 0.76-0.94 and 0.66-0.90.
    low, high = {"8": (1.2, 1.45), "64": (0.75, 1.0), "256": (0.65, 1.1)}[batch]
    assert low < summary.sd < high
    assert 1.0 < summary.median_ratio < 20.0
    expected = (
        f"| {batch} | {seed} | {summary.sd:.3f} | {summary.lag1:+.3f} | {summary.median_ratio:.2f} "
        f"| {summary.skew:+.2f} | {summary.excess_kurtosis:+.2f} | {summary.excess_kurtosis_raw:.1f} |"
    )
    assert expected in (SHIPPED / "README.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recording_comes_from_this_code(torch: Any, name: str) -> None:
    batch, seed = map(int, re.findall(r"\d+", name))
    shipped = pd.read_csv(SHIPPED / name, nrows=10)
    # Only the first steps: rounding differs between processors, and training amplifies it.
    pd.testing.assert_frame_equal(recorder.record(batch, seed, 10), shipped, rtol=1e-3)
