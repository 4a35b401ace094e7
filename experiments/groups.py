"""The configuration groups as files: where they are, and what can be chosen; quick to import."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
GROUPS = ("experiment", "stream", "estimators", "executor")


def folder() -> Path:
    """Where the configuration groups are: in the package when installed, beside it in the repository."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parent / "conf"


def options(group: str) -> dict[str, str]:
    """Choices of a group, each with the comment that opens its file."""
    choices = {}
    for path in sorted((folder() / group).glob("*.yaml")):
        comment = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            if not line.startswith("# @"):  # which is Hydra's
                comment.append(line.lstrip("# "))
        choices[path.stem] = " ".join(comment)
    return choices
