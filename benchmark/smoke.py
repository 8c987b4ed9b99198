"""The benchmark end to end on synthetic cases with the models at hand: cohort, predictions, tables. Trains nothing yet.

    python benchmark/smoke.py --work work [--cases 12]        (make benchmark-smoke)

Writes ``<work>/evaluation/`` with Tables 1 and 2 and ``report.html``. All cases are held out: the demo models were trained on
others. The figures are of synthetic cases and not comparable with the paper; every table says so. A stopped run continues.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from flrplan.cohort import CohortSettings, case_name, write_cohort
from flrplan.io import write_json

SMOKE_SEED = 5
NOTE = "Synthetic cases and small demo models: these figures are not comparable with the paper's."


def main() -> int:
    """Runs the three steps; returns the exit status of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--cases", type=int, default=12)
    arguments = parser.parse_args()
    write_cohort(CohortSettings(cases=arguments.cases, seed=SMOKE_SEED), arguments.work)
    split = {"test": [case_name(SMOKE_SEED, i) for i in range(arguments.cases)], "folds": []}
    if not (arguments.work / "splits.json").is_file():
        write_json(arguments.work / "splits.json", split)
    elif json.loads((arguments.work / "splits.json").read_text()) != split:
        sys.stderr.write(f"error: {arguments.work} holds another run; use another --work folder\n")
        return 1
    here = Path(__file__).parent
    steps = (
        [here / "predict.py", "--work", arguments.work, "--device", "cpu", "--no-mirroring"],
        [here / "evaluate.py", "--work", arguments.work, "--note", NOTE],
    )
    for step in steps:
        status = subprocess.run([sys.executable, *map(str, step)], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
