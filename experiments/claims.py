"""Figures that public texts state, each recomputed from the library: which hold, which are wrong, why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.claims_quantities import quantity_of
from experiments.claims_recomputed import Given, Quantity, Recomputed
from experiments.claims_stated import COLUMNS, Claim, Verdict, claims_of, shown
from experiments.metrics import Measured
from experiments.recall_memories import available
from experiments.recorder import MissingExtraError
from experiments.runs import Outcome
from experiments.setup import Setup
from experiments.streams import Array
from experiments.summaries import Rows, long_table, mean_interval
from experiments.tables import aligned, counted, quantity, wrapped

SHIPPED = Path(__file__).parent / "claims.csv"
RANKS = list(Verdict)
CLIPPED = 28
"""Characters of a cell that a table of the text shows."""
TINY = 1e-12
"""Of any unit that is claimed: what rounding leaves of zero."""


@dataclass(frozen=True)
class Parameters:
    """path: a table of claims, null for the one that is shipped; sha256: its digest, filled in where empty.

    packages: those here of all that its claims need, filled in where empty. Raises ValueError, one line, for
    a table that cannot be used or has another digest, and for other packages.
    """

    path: str | None = None
    sha256: str = ""
    packages: str = ""

    def __post_init__(self) -> None:
        # The digest is what names a run, so that a table that was changed is not served by an old one.
        found = hashlib.sha256(self._data).hexdigest()
        if self.sha256 not in ("", found):
            raise ValueError(f"experiment.sha256={self.sha256!r} is not valid; that of the table is {found}")
        object.__setattr__(self, "sha256", found)
        needed = {name for own, _ in self.claims for name in own.needs}
        # What could not be recomputed is to be tried again once its package is there.
        object.__setattr__(self, "packages", available(needed, self.packages))

    @cached_property
    def claims(self) -> list[tuple[Quantity, Given]]:
        """What is to be recomputed, in the table's order."""
        found = []
        try:
            for number, claim in claims_of(self._data):
                try:
                    own = quantity_of(claim)
                    found.append((own, own.given(claim)))
                except ValueError as error:
                    raise ValueError(f"row {number} ({shown(claim.id)[1:-1]}): {error}") from error
        except ValueError as error:
            raise ValueError(f"experiment.path={self._shown!r}: {error}") from error
        return found

    @property
    def _shown(self) -> str:
        return self.path or SHIPPED.name

    @cached_property
    def _data(self) -> bytes:
        try:
            return (SHIPPED if self.path is None else Path(self.path)).read_bytes()
        except OSError as error:
            raise ValueError(
                f"experiment.path={self._shown!r} cannot be read ({error.strerror}); name a table of claims"
            ) from error


@dataclass(frozen=True)
class Judged:
    """A claim, its quantity, what was recomputed, None with the reason where that needs what is not here."""

    claim: Claim
    own: Quantity
    found: Recomputed | None
    reason: str = ""

    @property
    def stated(self) -> Array:
        """The figures that are stated."""
        return np.array([figure.value for figure in self.claim.figures])

    @property
    def interval(self) -> tuple[float, float, float, int]:
        """Mean of what was simulated, the ends of its 95 % interval, and n."""
        return mean_interval(self.found.values if self.found else [])

    @cached_property
    def verdict(self) -> Verdict:
        """Of several figures, that of the worst.

        What is measured on an analogue can refute a general statement, and nothing else.
        """
        if self.found is None:
            return Verdict.NOT_TESTABLE
        if self.found.simulated:
            if not self.own.analogue or (self.own.general and self._within is Verdict.WRONG):
                return self._within
            return Verdict.NOT_TESTABLE
        pairs = zip(self.claim.figures, self.found.values, strict=True)
        return max((figure.verdict(value) for figure, value in pairs), key=RANKS.index)

    @property
    def _within(self) -> Verdict:
        """Of what is simulated, wherever it is."""
        _, low, high, _ = self.interval
        return self.claim.figures[0].verdict_within(low, high)

    @property
    def recomputed(self) -> str:
        """The numbers in full, nothing for what rounding leaves of zero; of what is simulated the mean."""
        if self.found is None:
            return ""
        return " ".join(_written(value) for value in self._values)

    @property
    def off(self) -> str:
        """Stated less recomputed, also in percent of the recomputed save for dB; of several, the most."""
        if self.found is None:
            return ""
        values = self._values
        differences = self.stated - values
        worst = int(np.argmax(np.abs(differences)))
        difference, value = differences[worst], values[worst]
        if not np.isfinite(difference):
            return "there is none"
        if self.claim.unit == "dB" or abs(value) < TINY:
            return _signed(difference)
        return f"{_signed(difference)} ({_signed(100.0 * difference / value)} %)"

    @property
    def why(self) -> str:
        """By how much, and what was computed, in a line."""
        if self.found is None:
            return self.reason
        return f"{self._how_far}: {'; '.join(filter(None, (self.own.formula, self.found.also)))}"

    def measured(self) -> Iterator[Rows]:
        """Lines of the long table, one or more for each figure that is stated."""
        several = len(self.stated) > 1
        for k, stated in enumerate(self.stated):
            if self.found is None:
                values = np.array([np.nan])
            else:
                values = self.found.values if self.found.simulated else self.found.values[k : k + 1]
            metrics = {
                "stated": np.full(values.size, stated),
                "recomputed": values,
                "difference": stated - values,
            }
            yield Rows(
                self.claim.source,
                self.claim.id + f"[{k}]" * several,
                self.claim.parameters,
                [Measured(name, self.claim.unit, own, self._missing) for name, own in metrics.items()],
            )

    @property
    def _missing(self) -> str:
        return str(Verdict.NOT_TESTABLE) if self.found is None else "there is none"

    @property
    def _values(self) -> Array:
        if self.found is None:
            return np.full(self.stated.shape, np.nan)
        return np.array([self.interval[0]]) if self.found.simulated else self.found.values

    @property
    def _how_far(self) -> str:
        if self.found is not None and self.found.simulated:
            mean, _, _, n = self.interval
            if self._within is Verdict.NOT_TESTABLE:
                return f"{mean:.3g} in {counted(n, 'run')}, which give no interval; seeds=2 or more would"
            if self.own.analogue and self.verdict is Verdict.NOT_TESTABLE:
                side = "higher" if mean > self.stated[0] else "lower"
                told = (
                    f"{side} than stated" if self._within is Verdict.WRONG else "which holds what is stated"
                )
                return f"not testable here: {self.own.lacks}; {self.spread}, {told}"
            where = f"off by {self.off}, outside" if self.verdict is Verdict.WRONG else f"within{self._one}"
            return f"{where} {self.spread}"
        if self.verdict is Verdict.CORRECT:
            return "equal"
        if not all(np.isfinite(self._values)):
            return self.off
        within = "" if self.verdict is Verdict.WRONG else f", within the digits given{self._one}"
        return f"off by {self.off}{within}"

    @property
    def spread(self) -> str:
        """What was simulated, with its interval, and on what; empty for what owes nothing to chance."""
        if self.found is None or not self.found.simulated:
            return ""
        mean, _, high, n = self.interval
        where = f", on {self.own.analogue}" * bool(self.own.analogue)
        return f"{quantity(mean, high - mean)} (95 % of n = {n}{where})"

    @property
    def _one(self) -> str:
        single = all(figure.digits == 1 for figure in self.claim.figures)
        return " (one digit only)" * (self.verdict is Verdict.TO_DIGITS and single)


def _signed(value: float) -> str:
    return f"{value:+.0f}" if 9.5 <= abs(value) < 1e6 else f"{value:+.2g}"


def _written(value: float) -> str:
    return "0" if abs(value) < TINY else f"{value:.10g}"


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is said to be so
def run(setup: Setup) -> Outcome:
    """Recompute every claim; ValueError, one line, for one that the library refuses."""
    setup.check_untuned("experiment=claims has settings of its own")
    chosen: Parameters = setup.parameters
    found = []
    for own, given in chosen.claims:
        try:
            found.append(judged(own, replace(given, repetitions=setup.seeds, root_seed=setup.root_seed)))
        except ValueError as error:
            raise ValueError(
                f"experiment.path={chosen.path or SHIPPED.name!r}: {shown(given.claim.id)[1:-1]}: {error}"
            ) from error
    table = long_table("claims", [rows for one in found for rows in one.measured()])
    return Outcome(table, summarised(found), written(found, chosen), {})


def judged(own: Quantity, given: Given) -> Judged:
    """Recompute a claim, or say which package that would need."""
    try:
        found = own.compute(given)
    except MissingExtraError as error:
        return Judged(given.claim, own, None, " ".join(str(error).split()))
    numbers = 1 if found.simulated else found.values.size
    if len(given.claim.figures) != numbers:
        raise ValueError(
            f"stated={shown(given.claim.stated)} is not valid; it must be {counted(numbers, 'number')}"
        )
    return Judged(given.claim, own, found)


def summarised(found: Sequence[Judged]) -> pd.DataFrame:
    """A row for each claim: as it is stated, what was recomputed, the verdict, and why."""
    stated = pd.DataFrame([[getattr(one.claim, name) for name in COLUMNS] for one in found], columns=COLUMNS)
    judged = {name: [str(getattr(one, name)) for one in found] for name in ("recomputed", "verdict", "why")}
    return stated.assign(**judged)


def written(found: Sequence[Judged], chosen: Parameters) -> str:
    """How many of each verdict, those that are wrong with the reasons, and a line on each source."""
    sources = list(dict.fromkeys(one.claim.source for one in found))
    counts = [["verdict", "claims"], *([verdict, str(n)] for verdict, n in _counts(found).items())]
    wrong = [one for one in found if one.verdict is Verdict.WRONG]
    blocks = [
        f"claims: {counted(len(found), 'figure')} of {counted(len(sources), 'source')}, each recomputed.",
        aligned(counts, texts=1),
        RULES,
        *_wrong(wrong),
        "Others, by source:",
        "\n".join(_source(name, [one for one in found if one.claim.source == name]) for name in sources),
    ]
    if absent := [one for one in found if one.verdict is Verdict.NOT_TESTABLE]:
        blocks.append("Not testable here:")
        blocks.append("\n".join(_item(f"{_clipped(one.claim.id)}: {one.why}") for one in absent))
    return "\n\n".join(blocks) + "\n"


RULES = """\
Correct: equal up to 1e-9 of it. Correct to the digits given: within half a unit of the last digit; zeros that
end a whole number count as digits up to the second (1000 is 950 to 1050, 10 is 9.5 to 10.5), and a plain 0 is
exact. A single digit says little (1 is 0.5 to 1.5), and is said to be one. What is simulated is so where the
95 % interval of the mean holds such a number, and never more.

Where the source's data are not here, an analogue is measured. What is said of those data is not testable
here, whatever the analogue shows. A general statement it can refute, not confirm: wrong where the 95 %
interval excludes what is stated, else not testable here."""


def _wrong(found: Sequence[Judged]) -> Iterator[str]:
    if not found:
        yield "Wrong: none."
        return
    yield f"Wrong, {len(found)}: stated less recomputed, and that in percent of the recomputed."
    lines = [["id", "stated", "recomputed", "unit", "off by"]]
    for one in found:
        claim = one.claim
        recomputed = _clipped(" ".join(f"{value:.4g}" for value in one._values))
        lines.append([*map(_clipped, (claim.id, claim.stated)), recomputed, claim.unit, one.off])
    yield aligned(lines, texts=1)
    reasons: dict[str, list[Judged]] = {}
    for one in found:
        reasons.setdefault(one.own.formula, []).append(one)
    items = []
    for formula, own in reasons.items():
        ids = ", ".join(_clipped(one.claim.id) for one in own)
        parts = (part for one in own if one.found for part in (one.spread, one.found.also) if part)
        also = dict.fromkeys(parts)
        items.append(_item(f"{ids}: {'; '.join([formula, *also])}"))
    yield "\n".join(items)


def _source(name: str, found: Sequence[Judged]) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in _counts(found).items() if n)
    return _item(f"{_clipped(name)}: {counted(len(found), 'claim')}, {counts}")


def _counts(found: Sequence[Judged]) -> dict[Verdict, int]:
    return {verdict: sum(one.verdict is verdict for one in found) for verdict in Verdict}


def _clipped(cell: str) -> str:
    """A cell as a Markdown table can hold it."""
    return (cell if len(cell) <= CLIPPED else f"{cell[: CLIPPED - 3]}...").replace("|", "\\|")


def _item(text: str) -> str:
    return wrapped(f"- {text}", "  ")
