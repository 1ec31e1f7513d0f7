"""What is found out about a checkpoint or a file."""

from dataclasses import dataclass, field

from tools.common.folder_entries import Entry


@dataclass
class Findings:
    """What is wrong, and what is said beside it, a line each.

    Attributes:
      problems: that make it anything but well.
      remarks: that a user may want to know, and that are no damage.
    """

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Takes over what another has."""
        self.problems += other.problems
        self.remarks += other.remarks


@dataclass(frozen=True)
class Verdict:
    """What is known of one checkpoint once all of it has been read.

    Attributes:
      entry: where it is.
      findings: no problems for one that is whole.
      tensors: how many it holds; None where that cannot be read.
      value_bytes: what they take in memory; None likewise.
    """

    entry: Entry
    findings: Findings
    tensors: int | None
    value_bytes: int | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.findings.problems
