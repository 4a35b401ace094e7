"""Makes all committed tables, figures and findings anew, and says of each whether it came out the same."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.config import PACKAGE
from experiments.files import write_whole
from experiments.job import completed
from experiments.likeness import Likeness, likeness
from experiments.report import report
from experiments.tables import quantity

ROOT = PACKAGE.parent
PUBLISHED = {
    "compare": [],
    "compare_tuned": ["tune=rmse"],
    "compare_wrong": ["stream=gradient_ratio_b64"],
    "recorded": ["stream=recorded"],
    "recorded_tuned": ["stream=recorded", "tune=prediction_rmse"],
    "recorded_b64_tuned": ["stream=recorded_b64", "tune=prediction_rmse"],
    "tradeoff": ["experiment=tradeoff"],
    "startup": ["experiment=startup"],
    "transition": ["experiment=transition"],
    "domain": ["experiment=domain"],
    "disturbance": ["experiment=disturbance"],
    "memory": ["experiment=memory"],
    "response": ["experiment=response"],
    "sensitivity": ["experiment=sensitivity"],
    "recommend": ["experiment=recommend", "stream=recorded", "stream.path=${recordings:digits_*.csv.gz}"],
    "recommend_loss": [
        "experiment=recommend",
        "stream=recorded",
        "stream.path=${recordings:digits_b64_seed0.csv.gz}",
        "stream.column=classification_loss",
    ],
    "recommend_outliers": ["experiment=recommend", "seeds=1", "stream.s=0.01", "stream.outlier_rate=0.05"],
    "adaptation": ["experiment=adaptation"],
    "regimes": ["experiment=regimes"],
    "calibration": ["experiment=calibration"],
    "optimiser": ["experiment=optimiser"],
    "balancing": ["experiment=balancing"],
    "recall": ["experiment=recall"],
    "claims": ["experiment=claims"],
    "cost": ["experiment=cost"],
    "overhead": ["experiment=overhead"],
    "optimiser_cost": ["experiment=optimiser_cost"],  # last, as it leaves a large process behind
}
"""The runs behind ``findings.md``, each by its overrides."""
TIMINGS = ("optimiser_cost", "cost", "overhead")
"""Those that measure this machine, and come out differently each time."""
TRAINED = ("optimiser", "balancing", "recall", "claims", "optimiser_cost")
"""Those that train, or recompute what was trained, and need kalmean[training]."""


@dataclass(frozen=True)
class Published:
    """A finished run under the name by which the findings quote it."""

    name: str
    overrides: list[str]
    folder: Path

    def quote(self, how: str, *what: str) -> str:
        """One number: mean, root (of a mean square), plain, n, difference or percent to the first, largest.

        Of an estimator and a metric, and of the rows whose columns contain what further parts, such as
        ``stream=s=0.01``, say: the first. Or, of the printed text, by ``after`` what it says after the line
        that begins with a word, up to the line that begins with another where there are two; by ``said`` the
        sentence that begins so.
        """
        if how == "after":
            text = self.text().partition(f"\n{what[0]}")[2].partition("\n")[2]
            return (text.partition(f"\n{what[1]}")[0] if len(what) > 1 else text).strip()
        if how == "said":
            lines = re.sub(r"\n  +", " ", self.text())
            sentence = rf"(?:^(?:- )?|[.;] )({re.escape(what[0])}.*?)(?:\.(?= )|\.?$)"
            found = re.search(sentence, lines, re.MULTILINE)
            if found is None:
                raise ValueError(f"{self.name} does not say {what[0]!r}")
            return found.group(1)
        rows = pd.read_csv(self.folder / "summary.csv")
        if how == "largest":
            return f"{rows.loc[rows['metric'] == what[0], 'mean'].max():.1e}"
        rows = rows[(rows["estimator"] == what[0]) & (rows["metric"] == what[1])]
        for column, _, part in (where.partition("=") for where in what[2:]):
            rows = rows[rows[column].fillna("").str.contains(part, regex=False)]
        if rows.empty:
            raise ValueError(f"{self.name} has no row of {' '.join(what)}")
        row = rows.iloc[0]
        if how == "n":
            return f"{row['n']:,}"
        if how == "root":
            return quantity(row["mean"] ** 0.5, (row["high"] - row["mean"]) / (2.0 * row["mean"] ** 0.5))
        if how in ("difference", "percent"):
            scale = 1.0 if how == "difference" else 100.0 / (row["mean"] - row["difference"])
            half = row["difference_high"] - row["difference"]
            number = quantity(scale * row["difference"], scale * half) + " %" * (how == "percent")
            return number if number.startswith("-") else f"+{number}"
        return quantity(row["mean"], row["high"] - row["mean"] if how == "mean" else 0.0)

    def text(self) -> str:
        """What the run printed."""
        return (self.folder / "summary.md").read_text(encoding="utf-8")

    def block(self) -> str:
        """The command, links to what it left, and its table."""
        command = " ".join(["python -m experiments", *map(shlex.quote, self.overrides)])
        figures = [f"[{path.stem}](figures/{self.name}_{path.name})" for path in self.figures()]
        text = self.text()
        return f"`{command}` ([table](tables/{self.name}.csv); {', '.join(figures)})\n\n```\n{text}```"

    def figures(self) -> list[Path]:
        """The figures that the run drew."""
        return sorted((self.folder / "figures").glob("*.png"))

    def files(self) -> Iterator[tuple[str, Path]]:
        """What is committed of it: names below ``results``, and where each was made."""
        for suffix in ("csv", "md", "tex"):
            if (path := self.folder / f"summary.{suffix}").exists():
                yield f"tables/{self.name}.{suffix}", path
        for path in self.figures():
            yield f"figures/{self.name}_{path.name}", path


@dataclass(frozen=True)
class Reproduced:
    """A committed file that was made anew, and how it compares to what was there."""

    name: str
    likeness: Likeness


def reproduce(results: Path, names: Sequence[str] = ()) -> Iterator[Reproduced]:
    """Run what is published, or some of it by name, from nothing, and put its files in their places.

    Nothing of earlier runs is used. The pages, which quote all runs, are made only where all were run.
    """
    with tempfile.TemporaryDirectory(prefix="kalmean-") as scratch:
        runs = {}
        for name in names or makeable():
            done = completed([*PUBLISHED[name], f"output={scratch}"])
            runs[name] = Published(name, PUBLISHED[name], done.path)
            for file, made in runs[name].files():
                yield _placed(results, file, made.read_bytes(), exempt=name in TIMINGS)
        if len(runs) == len(PUBLISHED):
            template = (PACKAGE / "findings.md").read_text(encoding="utf-8")
            findings = filled(template, runs).encode()
            yield _placed(results, "README.md", findings, exempt=True)
            folders = [run.folder for run in runs.values()]
            page = report(folders, "kalmean: the published runs", list(runs)).encode()
            yield _placed(results, "report.html", page, exempt=True)
            readme = results.parent / "README.md"
            text = runs["compare"].text().partition("\n\nWhere")[0] + "\n"
            shown = with_table(readme.read_text(encoding="utf-8"), text).encode()
            yield _placed(results.parent, "README.md", shown)


def makeable() -> list[str]:
    """Names of what can be made with the packages that are here."""
    trains = all(map(find_spec, ("torch", "sklearn")))
    return [name for name in PUBLISHED if trains or name not in TRAINED]


def _placed(folder: Path, name: str, made: bytes, exempt: bool = False) -> Reproduced:
    """Compare what was made with what is there, and put it there."""
    path = folder / name
    before = path.read_bytes() if path.exists() else None
    if before != made:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, made)
    shown = name if folder.name != "results" else f"results/{name}"
    return Reproduced(shown, likeness(path.suffix, before, made, exempt))


def filled(template: str, runs: Mapping[str, Published]) -> str:
    """Replace ``{run}`` by that run's block and ``{run how estimator metric}`` by a number."""

    def fill(found: re.Match[str]) -> Any:
        name, *request = shlex.split(found.group(1))
        return runs[name].quote(*request) if request else runs[name].block()

    return re.sub(r"\{([^{}]+)\}", fill, template)


def with_table(readme: str, table: str) -> str:
    """Put a printed table between the marks of a page."""
    marked = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found.group(1)}```\n{table}```\n{found.group(2)}", readme)


def main(names: Sequence[str]) -> int:
    """Reproduce and report; exit status 1 where a file came out differently, 2 for an unknown name."""
    if unknown := [name for name in names if name not in PUBLISHED]:
        print(f"reproduce: {unknown[0]} is not published; valid: {', '.join(PUBLISHED)}", file=sys.stderr)
        return 2
    if not names and (left := PUBLISHED.keys() - makeable()):
        print(f"not made without kalmean[training], nor are the pages: {', '.join(sorted(left))}")
    found = []
    for one in reproduce(ROOT / "results", names):
        print(f"{one.name}: {one.likeness}", flush=True)
        found.append(one)
    kinds = [one.likeness.kind for one in found]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    print(f"{len(found)} files: {counted}. git diff shows what changed.")
    return 1 if "different" in kinds else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
