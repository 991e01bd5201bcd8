"""The files that `learning.py` keeps: `GROUP/SETTING.csv`, and what was set beside it.

A run's rows are written at once when it has ended; a run that is not whole is refused by name.
`GROUP/SETTING.json` holds the parameters that a file's rows were measured with; rows measured
with others are never added to them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from learning_settings import Setting

FOLDER = Path(__file__).resolve().parent / "results" / "learning"
COLUMNS = (
    *("setting", "library", "env", "seed"),
    *("kind", "timesteps", "episodes", "evaluation_episodes", "mean", "std", "min"),
    *("seconds", "cpu_seconds", "fingerprint", "version", "torch", "gymnasium"),
)

Row = dict[str, Any]


class ChangedSettingError(Exception):
    """Rows were measured with other parameters."""


class Results:
    """The rows of one setting.

    Args:
        folder: of all results.
        group: the name of the setting's group.
        setting: what is measured.
    """

    def __init__(self, folder: Path, group: str, setting: Setting) -> None:
        self.setting = setting
        self.file = folder / group / f"{setting.name}.csv"
        self._record_file = self.file.with_suffix(".json")

    def fingerprint(self) -> str:
        """Of the recorded parameters.

        Raises:
            ChangedSettingError: if they differ from the setting's, or from those of the rows.
        """
        if not self.file.exists():
            self._record_file.parent.mkdir(parents=True, exist_ok=True)
            self._record_file.write_text(json.dumps(self.setting.record(), indent=1) + "\n")
        recorded = self._recorded()
        changes = self.changes()
        if changes:
            raise ChangedSettingError(
                f"{self.file} was measured with other parameters:\n  "
                + "\n  ".join(changes)
                + "\nGive the setting its old parameters or another name, or start again with "
                "`--restart`, which removes the file."
            )
        text = json.dumps(recorded, sort_keys=True)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        strangers = {row["fingerprint"] for row in self.rows()} - {fingerprint}
        if strangers:
            raise ChangedSettingError(
                f"{self.file} has rows whose fingerprint is not that of {self._record_file}: "
                f"{', '.join(sorted(strangers))}; remove them, or start again with `--restart`"
            )
        return fingerprint

    def changes(self) -> list[str]:
        """What is set otherwise than when the rows were measured, a line each.

        A parameter that is newer than the record is trusted not to change anything, unless it is
        set.
        """
        now, recorded = self.setting.record(), self._recorded()
        changed = [name for name in recorded if recorded[name] != now.get(name)]
        parameters = self.setting.parameters
        of_policy = [f"policy.{name}" for name in parameters.get("policy_kwargs", {})]
        changed += [name for name in (*parameters, *of_policy) if name in now.keys() - recorded]
        return [f"{name}: {recorded.get(name)}, now {now.get(name)}" for name in changed]

    def _recorded(self) -> dict[str, str]:
        if not self._record_file.exists():
            raise ChangedSettingError(
                f"{self.file} has lost {self._record_file.name}, which says what it was measured "
                f"with; bring it back, or start again with `--restart`"
            )
        recorded: dict[str, str] = json.loads(self._record_file.read_text())
        return recorded

    def remove(self) -> None:
        """Begin again."""
        self.file.unlink(missing_ok=True)
        self._record_file.unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """All of them, as they are in the file."""
        if not self.file.exists():
            return []
        with self.file.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def runs(self) -> dict[int, list[Row]]:
        """The rows of each seed, in their order.

        Raises:
            ValueError: if a run is not complete, or there twice.
        """
        runs: dict[int, list[Row]] = defaultdict(list)
        for row in self.rows():
            runs[int(row["seed"])].append(row)
        for seed, rows in runs.items():
            kinds = [row["kind"] for row in rows]
            if kinds.count("final") != 1 or kinds[-1] != "final":
                raise ValueError(
                    f"{self.file} must have one whole run of seed {seed}, which ends with its only "
                    f"`final` row; remove its rows to measure it again"
                )
        return dict(sorted(runs.items()))

    def append(self, rows: list[Row]) -> None:
        """Add a whole run, with one write."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        fingerprint = self.fingerprint()
        if not self.file.exists():
            writer.writeheader()
        writer.writerows({**row, "fingerprint": fingerprint} for row in rows)
        with self.file.open("ab", buffering=0) as stream:
            stream.write(text.getvalue().encode())
