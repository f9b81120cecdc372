"""Findings, and the verdict that they add up to."""

from dataclasses import dataclass, field

CLEAN = 0
COULD_NOT_CHECK = 1
CORRUPT = 2

_WORDS = {CLEAN: "clean", COULD_NOT_CHECK: "could not check", CORRUPT: "corrupt"}


class Refused(Exception):
    """Nothing more can be said about the image: the findings so far are the report."""


@dataclass
class Finding:
    """One of the answers of §1.1, or a note on something that is legal but worth knowing."""

    answer: str
    where: str
    what: str


@dataclass
class Report:
    """What was found.

    There is no verdict of "leaks only": the specification knows no leak, since a store chunk that no entry names is
    free (§6, §7.3), and bytes outside the store mean nothing (§2, §9).
    """

    findings: list[Finding] = field(default_factory=list)

    def corrupt(self, where: str, what: str) -> None:
        """The bytes break a rule."""
        self.findings.append(Finding("corrupt", where, what))

    def unsupported(self, where: str, what: str) -> None:
        """The bytes may be right for another reader."""
        self.findings.append(Finding("unsupported", where, what))

    def limit(self, where: str, what: str) -> None:
        """The bytes ask for more than a reader gives."""
        self.findings.append(Finding("limit", where, what))

    def note(self, where: str, what: str) -> None:
        """Legal. Does not change the verdict."""
        self.findings.append(Finding("note", where, what))

    def of(self, *answers: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.answer in answers]

    def refuse_if_any(self) -> None:
        """Ends the check if what follows would build on something wrong."""
        if self.of("corrupt", "unsupported", "limit"):
            raise Refused

    @property
    def code(self) -> int:
        """The exit code. Damage outweighs what could not be judged."""
        if self.of("corrupt"):
            return CORRUPT
        return COULD_NOT_CHECK if self.of("unsupported", "limit") else CLEAN

    def as_json(self) -> dict:
        def rows(*answers: str) -> list[dict]:
            return [{"where": each.where, "what": each.what} for each in self.of(*answers)]

        return {
            "verdict": _WORDS[self.code],
            "corruptions": len(self.of("corrupt")),
            "errors": rows("corrupt"),
            "refusals": rows("unsupported", "limit"),
            "notes": rows("note"),
        }

    def as_text(self) -> str:
        lines = [f"{each.answer}: {each.where}: {each.what}" for each in self.findings]
        return "\n".join([*lines, f"verdict: {_WORDS[self.code]}"])
