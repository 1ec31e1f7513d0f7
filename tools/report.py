"""Writes a report of a run, or of a stranger's checkpoint, as one HTML file that needs no network.

  python -m tools.report model1 --output=report.html
  python -m tools.report model1 model --overwrite

shows the run's curves, its configuration, its checkpoints and whether each verifies, accuracy by
class, the worst mistakes, filters, the layers of the graph, and each variable with its statistics.
Of a stranger's checkpoint it shows what can be known without data. Several runs stand together.
"""

if __name__ == "__main__":  # First, as what follows takes its time.
    from cli.signals import end_at_signals

    end_at_signals()

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cli.fields import REPEATED, Check, ends_in, flag
from cli.terminal import import_tensorflow
from prediction.request import Limits
from tools.command import Printed, check_installed, overwrite, run_command, show


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Printed, Limits):
    """What is reported on, and where to."""

    GROUP: ClassVar = "selection"

    runs: Sequence[str] = flag(
        "Folders of runs, or checkpoints: their prefixes or any file of them.",
        name="run",
        many=REPEATED,
        path=True,
        positional=True,
        check=Check(all, "must not be empty"),
    )
    input: Sequence[str] = flag(
        "Labelled images to test each model on, as predict.py takes them. A model that was trained "
        "on the built-in shapes is tested on their test images without it.",
        (),
        many=REPEATED,
        path=True,
        group="input",
    )
    output: str = flag(
        "The file to write.",
        "report.html",
        path=True,
        check=ends_in(".html", message="must end in .html"),
        group="output",
    )
    overwrite: bool = overwrite()


def main(config: ReportConfig) -> int:
    """Writes the report and prints where it is; 1 where a checkpoint does not verify."""
    check_installed(["matplotlib"], "plot", "a report")
    import_tensorflow()
    from prediction.output import check_target, write_whole
    from tools.report_sections import as_text, report

    check_target(config.output, [*config.runs, *config.input], overwrite=config.overwrite)
    content, record = report(config)
    write_whole(config.output, content)
    show({"output": config.output, "bytes": len(content), **record}, as_text, config.format)
    return 1 if any(run["damaged"] for run in record["runs"]) else 0


if __name__ == "__main__":
    run_command(main, ReportConfig, __doc__)
