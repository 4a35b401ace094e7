"""Record the gradient norms of a small two-task training run: real streams for the estimators to smooth.

`python -m experiments.recorder` trains a network on scikit-learn's bundled digits (which digit it is, and how
much ink it holds) and writes both tasks' gradient norms at every step. Their ratio is the statistic that
gradient balancing smooths. torch and scikit-learn, the extra `training`, are imported only when a recording
is made.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from experiments.files import write_whole

if TYPE_CHECKING:
    import torch

COLUMNS = ("step", "classification_norm", "regression_norm", "classification_loss", "regression_loss")
TRAINING_SET = 1797
LEARNING_RATE = 1e-3


class MissingExtraError(ImportError):
    """Recording was asked for, but torch or scikit-learn is not installed."""


class UnwritableError(OSError):
    """A recording could not be written; the message names the setting, the path and the reason."""


class TrainingSet(NamedTuple):
    """The digits with both targets: pixels (N, 64) and ink (N,) standardised, labels (N,) in 0..9."""

    pixels: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    ink: np.ndarray[Any, np.dtype[np.float32]]


class Network(NamedTuple):
    """A shared trunk and one head per task; all three are torch modules."""

    trunk: torch.nn.Module
    classification_head: torch.nn.Module
    regression_head: torch.nn.Module


class TaskGradient(NamedTuple):
    """One task's loss, its gradient's norm over the trunk, and its gradients in parameter order."""

    loss: float
    norm: float
    trunk: tuple[torch.Tensor, ...]
    head: tuple[torch.Tensor, ...]


class Summary(NamedTuple):
    """The log ratio of the norms (regression over classification) over the second half of a recording."""

    rows: int
    left_out: int
    sd: float
    lag1: float
    skew: float
    excess_kurtosis: float
    median_ratio: float
    excess_kurtosis_raw: float


def load_training_set() -> TrainingSet:
    """Load the digits and derive the ink target, an image's mean pixel intensity.

    Shapes: pixels (1797, 64), labels (1797,), ink (1797,). Units: pixels in standard deviations of all pixels
    together, ink in standard deviations over the images. Raises MissingExtraError without the extra. Source:
    UCI ML hand-written digits (Alpaydin and Kaynak 1998), as bundled with scikit-learn.
    """
    _require_training()
    from sklearn.datasets import load_digits

    data, labels = load_digits(return_X_y=True)
    raw = np.asarray(data, dtype=np.float64)
    pixels, ink = (((x - x.mean()) / x.std()).astype(np.float32) for x in (raw, raw.mean(axis=1)))
    return TrainingSet(pixels, np.asarray(labels, dtype=np.int64), ink)


def build_network(seed: int) -> Network:
    """Build the network that a recording with this seed starts from; global random state stays as it is.

    Shapes: trunk 64 -> 64 -> 32 with ReLU, heads 32 -> 10 (logits) and 32 -> 1; float32 on the CPU. Raises
    ValueError for a negative seed and MissingExtraError without the extra. Source: torch's default
    initialisation.
    """
    seed = _checked("seed", seed, 0)
    _require_training()
    import torch
    from torch import nn

    kind: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed accelerators too, and fork_rng(devices=[]) does not bring those back.
        torch.default_generator.manual_seed(_derived_seed(seed, 0))
        trunk = nn.Sequential(nn.Linear(64, 64, **kind), nn.ReLU(), nn.Linear(64, 32, **kind), nn.ReLU())
        return Network(trunk, nn.Linear(32, 10, **kind), nn.Linear(32, 1, **kind))


def task_gradients(
    network: Network, pixels: torch.Tensor, labels: torch.Tensor, ink: torch.Tensor
) -> tuple[TaskGradient, TaskGradient]:
    """Measure each task's own gradient on one batch: classification first, then regression.

    Shapes: pixels (B, features), labels (B,) integers, ink (B,). Units: cross-entropy in nats and mean
    squared error, both averaged over the batch; a norm is the Euclidean norm over all trunk parameters
    together, summed in float64, and zero where the gradient is. Raises RuntimeError or ValueError, torch's
    own, where shapes do not fit. Source: GradNorm (Chen et al. 2018), with all the shared parameters in place
    of the last shared layer.
    """
    import torch
    from torch.nn import functional

    with torch.enable_grad():
        shared = network.trunk(pixels)
        classification = functional.cross_entropy(network.classification_head(shared), labels)
        regression = functional.mse_loss(network.regression_head(shared).squeeze(-1), ink)
        return (
            _task_gradient(classification, network.trunk, network.classification_head, retain_graph=True),
            _task_gradient(regression, network.trunk, network.regression_head, retain_graph=False),
        )


def record(batch_size: int, seed: int, steps: int) -> pd.DataFrame:
    """Train on the sum of both losses; return each step's gradient norms and losses, taken before it.

    Shapes: `steps` rows, the columns of `COLUMNS`; step counts from 0. Units: as in `task_gradients`. The
    batch is drawn afresh from all digits at each step, without repeats inside it; Adam at 1e-3. One seed
    gives the same first network for every batch size, and a longer recording begins like a shorter one.
    Nothing global changes, but for torch's thread count while this runs. Raises ValueError for a setting out
    of range, TypeError for one that is no whole number, and MissingExtraError without the extra. Source: this
    project's own protocol.
    """
    batch_size = _checked("batch_size", batch_size, 1, TRAINING_SET)
    seed = _checked("seed", seed, 0)
    steps = _checked("steps", steps, 1)
    training_set = load_training_set()
    network = build_network(seed)
    import torch

    pixels, labels, ink = (torch.from_numpy(array) for array in training_set)
    trunk, classification_head, regression_head = (list(module.parameters()) for module in network)
    adam = torch.optim.Adam([*trunk, *classification_head, *regression_head], lr=LEARNING_RATE)
    generator = torch.Generator(device="cpu").manual_seed(_derived_seed(seed, 1))
    rows: list[tuple[int, float, float, float, float]] = []
    with one_thread():
        for step in range(steps):
            batch = torch.randperm(TRAINING_SET, generator=generator, device="cpu")[:batch_size]
            first, second = task_gradients(network, pixels[batch], labels[batch], ink[batch])
            rows.append((step, first.norm, second.norm, first.loss, second.loss))
            for parameter, one, other in zip(trunk, first.trunk, second.trunk, strict=True):
                parameter.grad = one + other
            heads = zip([*classification_head, *regression_head], [*first.head, *second.head], strict=True)
            for parameter, gradient in heads:
                parameter.grad = gradient
            adam.step()
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summarise(recording: pd.DataFrame) -> Summary:
    """Describe the log ratio of the norms over a recording's second half, its straight-line trend removed.

    Shapes: a frame with the columns of `COLUMNS` and T rows, of which T // 2 onwards are used. Units: sd in
    natural logs; lag1 is the lag-1 autocorrelation; skew and excess_kurtosis are those of the detrended log
    ratio, median_ratio and excess_kurtosis_raw those of the ratio itself, not detrended. Rows whose ratio is
    zero, infinite or undefined are left out and counted. A figure that the rows cannot give is NaN. Raises
    KeyError where a column is absent. Source: moment estimators, the sd with two degrees of freedom spent on
    the line.
    """
    late = recording.iloc[len(recording) // 2 :]
    with np.errstate(all="ignore"):
        every = late["regression_norm"].to_numpy(np.float64) / late["classification_norm"].to_numpy(
            np.float64
        )
    usable = np.isfinite(every) & (every > 0.0)
    ratio = every[usable]
    rows = len(ratio)
    sd = lag1 = skew = kurtosis = raw = np.nan
    if rows > 2:
        time = np.flatnonzero(usable) - np.flatnonzero(usable).mean()
        centred = np.log(ratio) - np.log(ratio).mean()
        # NaN in the gaps, so that only rows next to each other count towards the lag-1 product.
        residual = np.full(len(late), np.nan)
        residual[usable] = centred - time * (time @ centred) / (time @ time)
        energy = float(np.nansum(residual**2))
        sd = float(np.sqrt(energy / (rows - 2)))
        lag1 = float(np.nansum(residual[1:] * residual[:-1])) / energy if energy else np.nan
        skew, kurtosis = _shape(residual[usable])
        raw = _shape(ratio)[1]
    median = float(np.median(ratio)) if rows else np.nan
    return Summary(rows, len(late) - rows, sd, lag1, skew, kurtosis, median, raw)


def save(recording: pd.DataFrame, path: Path) -> None:
    """Write a recording as gzipped CSV whose bytes depend on its values only, whole or not at all.

    Shapes: any frame; nine significant digits, which carry float32 exactly. The gzip header holds neither
    time nor name, and the file appears under its own name only once it is complete. Raises OSError where it
    cannot be written. Source: RFC 1952 for the header.
    """
    text = recording.to_csv(index=False, float_format="%.9g", na_rep="nan", lineterminator="\n")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as packed:
        packed.write(text.encode("ascii"))
    write_whole(path, buffer.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Record every asked batch size and seed, print one line per file, and return the exit status.

    Shapes and units: as in `record` and `summarise`. Returns 0; 1 where a file cannot be written; 2 where the
    extra is absent; 130 after Ctrl-C; each failure is one line on stderr, and files completed before it stay.
    Raises SystemExit(2) for a bad argument, after one line. Source: this project's own protocol.
    """
    options = _parser().parse_args(argv)
    output: Path = options.output
    try:
        _require_training()
        with _writing(output):
            output.mkdir(parents=True, exist_ok=True)
        for batch_size in dict.fromkeys(options.batch_size):
            for seed in dict.fromkeys(options.seeds):
                path = output / f"digits_b{batch_size}_seed{seed}.csv.gz"
                recording = record(batch_size, seed, options.steps)
                with _writing(path):
                    save(recording, path)
                print(f"{path}: {_line(summarise(recording))}", flush=True)
    except MissingExtraError as error:
        print(error, file=sys.stderr)
        return 2
    except UnwritableError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the files listed are complete, nothing partial is left", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UnwritableError(
            f"--output: cannot write {str(path)!r}: {reason}; valid: a writable folder"
        ) from error


def _require_training() -> None:
    try:
        for name in ("torch", "sklearn.datasets"):
            import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"recording needs torch and scikit-learn ({error.name or 'one of them'} cannot be imported): "
            "pip install 'kalmean[training]'"
        ) from error


def _task_gradient(
    loss: torch.Tensor, trunk: torch.nn.Module, head: torch.nn.Module, retain_graph: bool
) -> TaskGradient:
    import torch

    shared = list(trunk.parameters())
    gradients = torch.autograd.grad(loss, [*shared, *head.parameters()], retain_graph=retain_graph)
    # In float32 the squares of a gradient below 1e-23 are zero, and so would be a norm that is not.
    flat = torch.cat([gradient.flatten().double() for gradient in gradients[: len(shared)]])
    norm = torch.linalg.vector_norm(flat).item()
    return TaskGradient(loss.item(), norm, gradients[: len(shared)], gradients[len(shared) :])


def _derived_seed(seed: int, purpose: int) -> int:
    # Initial weights and batches would otherwise share one stream of random numbers.
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread."""
    import torch

    # How a sum is split among threads changes its rounding, and 2000 steps of training amplify that.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _shape(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    if variance == 0.0:
        return np.nan, np.nan
    return float(np.mean(centred**3)) / variance**1.5, float(np.mean(centred**4)) / variance**2 - 3.0


def _line(summary: Summary) -> str:
    text = f"detrended log-ratio sd {summary.sd:.3f}, median ratio {summary.median_ratio:.3f}"
    return text + (f", {summary.left_out} rows without a usable ratio left out" if summary.left_out else "")


def _bounds(low: int, high: int | None) -> str:
    if high is None:
        return f"a whole number, {low} or more"
    return f"a whole number from {low} to {high}, the size of the training set"


def _checked(name: str, value: int, low: int, high: int | None = None) -> int:
    number = index(value)
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name}: got {number}; valid: {_bounds(low, high)}")
    return number


class _Whole:
    """An argparse type: a whole number within bounds."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self._low = low
        self._high = high

    def __call__(self, text: str) -> int:
        try:
            return _checked("", int(text), self._low, self._high)
        except ValueError:
            bounds = _bounds(self._low, self._high)
            raise argparse.ArgumentTypeError(f"got {text!r}; valid: {bounds}") from None


def _folder(text: str) -> Path:
    path = Path(text)
    try:
        nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
        usable = bool(text) and "\0" not in text and nearest.is_dir()
    except OSError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"got {text!r}; valid: a folder, or a path where one can be made")
    return path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{' '.join(message.removeprefix('argument ').split())} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m experiments.recorder",
        description="Record per-step gradient norms of a two-task network on scikit-learn's digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    sizes = _Whole(1, TRAINING_SET)
    parser.add_argument("--batch-size", type=sizes, nargs="+", default=[8, 64, 256], help="images per step")
    parser.add_argument("--seeds", type=_Whole(0), nargs="+", default=[0, 1, 2], help="one file per seed")
    parser.add_argument("--steps", type=_Whole(1), default=2000, help="training steps, rows in each file")
    parser.add_argument(
        "--output",
        type=_folder,
        default=Path("results/recordings"),
        help="folder for the files, made if absent",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
