"""Makes the committed tables, figures and findings: ``python -m experiments.publish``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.config import PACKAGE
from experiments.job import completed
from experiments.tables import quantity

ROOT = PACKAGE.parent
PUBLISHED = {
    "compare": [],
    "compare_tuned": ["tune=rmse"],
    "compare_wrong": ["stream=gradient_ratio_b64"],
    "recorded": ["stream=recorded"],
    "recorded_tuned": ["stream=recorded", "tune=prediction_rmse"],
    "recorded_b64_tuned": ["stream=recorded_b64", "tune=prediction_rmse"],
    "response": ["experiment=response"],
    "cost": ["experiment=cost"],
}
"""The runs behind ``findings.md``, each by its overrides."""


@dataclass(frozen=True)
class Published:
    """A finished run under the name by which the findings quote it."""

    name: str
    overrides: list[str]
    folder: Path

    def quote(self, how: str, *what: str) -> str:
        """One number: mean, plain (without its interval), difference or percent to the first, largest.

        Or, by ``after``, what the printed text says after a word.
        """
        if how == "after":
            return self.text().partition(f"\n{what[-1]}")[2].partition("\n")[2].strip()
        summary = pd.read_csv(self.folder / "summary.csv")
        rows = summary[summary["metric"] == what[-1]]
        if how == "largest":
            return f"{rows['mean'].max():.1e}"
        row = rows[rows["estimator"] == what[0]].iloc[0]
        if how == "percent":
            return f"{100.0 * row['difference'] / (row['mean'] - row['difference']):+.1f} %"
        if how == "difference":
            number = quantity(row["difference"], row["difference_high"] - row["difference"])
            return number if number.startswith("-") else f"+{number}"
        return quantity(row["mean"], row["high"] - row["mean"] if how == "mean" else 0.0)

    def text(self) -> str:
        """What the run printed."""
        return (self.folder / "summary.md").read_text(encoding="utf-8")

    def block(self) -> str:
        """The command, links to what it left, and its table."""
        command = " ".join(["python -m experiments", *self.overrides])
        figures = [f"[{path.stem}](figures/{self.name}_{path.name})" for path in self.figures()]
        text = self.text()
        return f"`{command}` ([table](tables/{self.name}.csv); {', '.join(figures)})\n\n```\n{text}```"

    def figures(self) -> list[Path]:
        """The figures that the run drew."""
        return sorted((self.folder / "figures").glob("*.png"))

    def copy_to(self, results: Path) -> None:
        """Copy summary and figures to the committed folders."""
        for folder in ("tables", "figures"):
            (results / folder).mkdir(exist_ok=True)
        for suffix in ("csv", "md"):
            shutil.copyfile(self.folder / f"summary.{suffix}", results / "tables" / f"{self.name}.{suffix}")
        for path in self.figures():
            shutil.copyfile(path, results / "figures" / f"{self.name}_{path.name}")


def publish(results: Path) -> Mapping[str, Published]:
    """Run all that is published and write tables, figures and README.md below a folder."""
    runs = {
        name: Published(name, overrides, completed([*overrides, f"output={results}"]).path)
        for name, overrides in PUBLISHED.items()
    }
    for run in runs.values():
        run.copy_to(results)
    template = (PACKAGE / "findings.md").read_text(encoding="utf-8")
    (results / "README.md").write_text(filled(template, runs), encoding="utf-8")
    return runs


def filled(template: str, runs: Mapping[str, Published]) -> str:
    """Replace ``{run}`` by that run's block and ``{run how estimator metric}`` by a number."""

    def fill(found: re.Match[str]) -> Any:
        name, *request = found.group(1).split()
        return runs[name].quote(*request) if request else runs[name].block()

    return re.sub(r"\{([^{}]+)\}", fill, template)


def with_table(readme: str, table: str) -> str:
    """Put a printed table between the marks of a page."""
    marked = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found.group(1)}```\n{table}```\n{found.group(2)}", readme)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    made = publish(ROOT / "results")
    summary = (made["compare"].folder / "summary.md").read_text(encoding="utf-8")
    first = summary.partition("\n\nWhere")[0] + "\n"
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), first), encoding="utf-8")
