"""Energy of Macs: the sensor `macos` of tracarbon.

Apple Silicon has energy counters that everybody may read, by way of IOReport. Where there are none, or none that
answer, `powermetrics` is asked, which takes root, and else the I/O registry, which knows the power of a machine with a
battery. Each step down is a lower fidelity and another method, and is named as a problem with its reason.
"""

from __future__ import annotations

import shlex
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import Field, field_validator, model_validator
from tracarbon.exceptions import TracarbonException
from tracarbon.hardwares.energy import EnergyUsage, Fidelity
from tracarbon.hardwares.sensors import EnergyConsumption
from tracarbon.plugin import PluginContext, PluginOptions, Probe

from tracarbon_sensor_macos._apple import CORE_FOUNDATION_PATH, IOREPORT_PATH
from tracarbon_sensor_macos._errors import SourceError
from tracarbon_sensor_macos.sources import (
    CommandSource,
    IoregSource,
    IOReportSource,
    PowermetricsSource,
    Source,
)

__all__ = ["MacEnergyConsumption"]

_OF_A_SHELL = frozenset({"|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"})
_ELSEWHERE = "needs macOS"

SourceName: TypeAlias = Literal["auto", "ioreport", "powermetrics", "ioreg"]


def _split(command: str) -> list[str]:
    """Return a command's program and arguments.

    Raises:
        ValueError: it is empty, its quotes do not match, or it needs a shell.
    """
    arguments = shlex.split(command)
    if not arguments:
        raise ValueError("the command is empty")
    for argument in arguments:
        if argument in _OF_A_SHELL:
            raise ValueError(
                f"the command is run without a shell, which {argument!r} needs: write sh -c '...' around it, or leave "
                'shell_command out: what the old default read, the adapter\'s power, is read by source = "ioreg"'
            )
    return arguments


class MacEnergyConsumption(EnergyConsumption):
    """Energy of a Mac: of its chip, by energy counters, or else of the whole machine.

    Attributes:
        shell_command: a command that prints watts of the whole machine, to be run in place of everything else. It is
            run without a shell.
        source: `auto`, or the one source to read: `ioreport`, `powermetrics` or `ioreg`.
        core_foundation_path: the library CoreFoundation, where it is not at its usual place.
        ioreport_path: the library IOReport, likewise.
        context: what the pipeline offers.

    Raises:
        TracarbonException: there is no such source, or it is no command that can be run without a shell.
    """

    fidelity: ClassVar[Fidelity] = Fidelity.MEASURED
    # Counters need no more than the close of a window, but it is not known beforehand that there are some.
    sampling_interval_seconds: ClassVar[float] = 10.0

    shell_command: str | None = None
    source: SourceName = "auto"
    core_foundation_path: str | None = None
    ioreport_path: str | None = None
    context: PluginContext | None = None

    class Options(PluginOptions):
        """Options of `[sensors.macos]`."""

        source: SourceName = Field(
            default="auto", description="what to read; auto takes the first of the others that answers"
        )
        shell_command: str | None = Field(
            default=None,
            description="command that prints watts of the whole machine; run, without a shell, in place of all else",
        )
        core_foundation_path: str | None = Field(
            default=None, description="library CoreFoundation; default: that of the system"
        )
        ioreport_path: str | None = Field(default=None, description="library IOReport; default: that of the system")

        @field_validator("shell_command")
        @classmethod
        def _needs_no_shell(cls, command: str | None) -> str | None:
            if command is not None:
                _split(command)
            return command

        @model_validator(mode="after")
        def _agree(self) -> Self:
            if self.shell_command is not None and self.source != "auto":
                raise ValueError("shell_command is read in place of every source: leave source out")
            return self

    def __post_init__(self) -> None:
        if self.source not in (known := get_args(SourceName)):
            raise TracarbonException(f"source is {self.source!r}; there are {', '.join(known)}")
        self._context = self.context or PluginContext("macos")
        self._sources = self._make_sources()
        self._opened: Source | None = None
        self._step_down: str | None = None

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it with the context."""
        return cls(**dict(options), context=context)

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Try each source, the best first."""
        if context.platform != "Darwin":
            return Probe(works=False, reason=_ELSEWHERE)
        refusals: list[Probe] = []
        for source in cls.from_options(cls.Options(), context)._sources:
            answer = source.probe()
            if answer.works:
                reason = "; ".join([answer.reason, *(refusal.reason for refusal in refusals)])
                return Probe(works=True, reason=reason, fidelity=answer.fidelity)
            refusals.append(answer)
        return Probe(
            works=False,
            reason="; ".join(refusal.reason for refusal in refusals),
            remedy="; ".join(refusal.remedy for refusal in refusals if refusal.remedy),
        )

    async def __aenter__(self) -> Self:
        """Open the first source that answers.

        Raises:
            TracarbonException: this is no Mac, or none answers; says why, for each.
        """
        await self._close()
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it; a program that runs is ended, and its process group."""
        await self._close()

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the mean watts since the previous call, or where only its power is known, that of now.

        The first call of counters opens the window, and says nothing.

        Raises:
            TracarbonException: the source does not answer any more.
        """
        source = self._opened or await self._open()
        try:
            usage = await source.read()
        except SourceError as error:
            raise TracarbonException(str(error)) from error
        usage.method = source.method
        if source.lacks_host:
            await self._add_system(usage)
        if self._step_down is not None:
            usage.problems = [self._step_down, *usage.problems]
        return usage

    async def _add_system(self, usage: EnergyUsage) -> None:
        """Add the power of the whole machine, where the counters of the chip do not tell the host's."""
        registry = next((source for source in self._sources if isinstance(source, IoregSource)), None)
        if registry is None:
            return
        try:
            system = await registry.read()
        except SourceError as error:
            usage.problems = [*usage.problems, f"system: {error.reason}"]
            return
        usage.host_energy_usage = system.host_energy_usage
        usage.devices = [*usage.devices, *system.devices]
        usage.problems = [*usage.problems, *system.problems]
        usage.method = f"{usage.method}; {registry.method}"

    async def _open(self) -> Source:
        if not self._sources:
            raise TracarbonException(f"{_ELSEWHERE}: this is {self._context.platform}")
        refusals: list[SourceError] = []
        for source in self._sources:
            try:
                await source.open()
            except SourceError as error:
                refusals.append(error)
                continue
            reasons = "; ".join(refusal.reason for refusal in refusals)
            self._step_down = f"read by {source.name} in place of something better: {reasons}" if reasons else None
            # for whoever reads it without a meter; to a meter, each device says its own
            self.fidelity = source.fidelity  # type: ignore[misc]
            self._opened = source
            return source
        raise TracarbonException("; ".join(map(str, refusals)))

    async def _close(self) -> None:
        source, self._opened = self._opened, None
        if source is not None:
            await source.close()
        if self.context is None:
            self._context.close()

    def _make_sources(self) -> list[Source]:
        """Return the sources to try, the best first; none where there can be none."""
        if self.shell_command is not None:
            try:
                return [CommandSource(_split(self.shell_command))]
            except ValueError as error:
                raise TracarbonException(f"shell_command: {error}") from error
        ioreport = IOReportSource(
            self._context, self.core_foundation_path or CORE_FOUNDATION_PATH, self.ioreport_path or IOREPORT_PATH
        )
        # Who names the libraries knows that they are there, whatever the platform.
        is_mac = self._context.platform == "Darwin"
        if not is_mac:
            if (self.ioreport_path is None) != (self.core_foundation_path is None):
                raise TracarbonException("off a Mac, ioreport_path and core_foundation_path are needed both, or none")
            return [ioreport] if self.ioreport_path and self.source in ("auto", "ioreport") else []
        everything: list[Source] = [ioreport, PowermetricsSource(), IoregSource(self._context.clock.monotonic)]
        return [source for source in everything if self.source in ("auto", source.name)]
