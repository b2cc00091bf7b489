"""The command that writes the report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmrec.cli.output import add_command, add_store, open_store, place


def add_report_command(commands: Any) -> None:
    report = add_command(commands, "report", _report, "a store and a model as one HTML page to read and to show")
    add_store(report)
    report.add_argument("--model", type=Path, metavar="DIR", help="a model fitted to the store")
    report.add_argument(
        "--interactions", type=Path, metavar="FILE", help="held-out interactions, which evaluate the model"
    )
    report.add_argument(
        "--out", type=place, default=Path("report.html"), metavar="FILE|URL", help="the page (default: report.html)"
    )


def _report(arguments: argparse.Namespace) -> int:
    from mmrec.recommending import Recommender
    from mmrec.reporting import write_report

    model = None if arguments.model is None else Recommender.load(arguments.model)
    write_report(arguments.out, open_store(arguments), model, arguments.interactions)
    print(f"{arguments.out}: to be opened by any browser")
    return 0
