"""What is known of the instance that this process runs on: its firmware is read, its metadata service asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import anyio
from pydantic import AfterValidator, Field
from tracarbon.exceptions import TracarbonException
from tracarbon.plugin import PluginContext, PluginOptions, Probe

from tracarbon_sensor_aws._firmware import read_firmware
from tracarbon_sensor_aws._metadata import MetadataError, ask, check_endpoint, endpoints

Asking: TypeAlias = Literal["auto", "always", "never"]

_TIMEOUT_SECONDS = 1.0
_LONGEST_SECONDS = 5.0


class InstanceOptions(PluginOptions):
    """The options that sensor and location have in common."""

    imds: Asking = Field(
        default="auto",
        description="whether the instance metadata service may be asked for what is not given: auto (where the "
        "firmware says Amazon EC2), always, or never",
    )
    imds_endpoint: Annotated[str, AfterValidator(check_endpoint)] | None = Field(
        default=None,
        description="address of the instance metadata service; default: what AWS_EC2_METADATA_SERVICE_ENDPOINT says, "
        "else http://169.254.169.254, then http://[fd00:ec2::254]",
    )


@dataclass(frozen=True, slots=True)
class Instance:
    """The instance, as far as it may be asked.

    Attributes:
        host_root: where the host's `/sys` is.
        imds: whether the metadata service may be asked.
        imds_endpoint: its address, where it is another one.
    """

    host_root: Path = Path("/")
    imds: Asking = "auto"
    imds_endpoint: str | None = None

    def instance_type(self) -> str:
        """Return its type, such as `m5.large`. Blocks while the metadata service is asked.

        Raises:
            MetadataError: it is not known; says why, and what would help.
        """
        return read_firmware(self.host_root).instance_type or self._ask("instance-type")

    def region(self) -> str:
        """Return its region, such as `eu-west-1`. Blocks while the metadata service is asked.

        Raises:
            MetadataError: it is not known; says why, and what would help.
        """
        return self._ask("placement/region")

    def _ask(self, path: str) -> str:
        firmware = read_firmware(self.host_root)
        if self.imds == "never":
            raise MetadataError('imds = "never" keeps the instance metadata service from being asked')
        if self.imds == "auto" and not firmware.is_ec2:
            raise MetadataError(f'{firmware.denial}; imds = "always" asks the metadata service all the same')
        return ask(path, endpoints(self.imds_endpoint, os.environ), _TIMEOUT_SECONDS)


def probed(context: PluginContext, option: str, say: Callable[[Instance], Probe]) -> Probe:
    """Return what `say` makes of the instance; elsewhere than on EC2 nothing works, and nobody is asked.

    Args:
        context: of the probe.
        option: what the user could set, such as `region in [location]`.
        say: may raise what says why it would not work.
    """
    firmware = read_firmware(context.host_root)
    if not firmware.is_ec2:
        return Probe(works=False, reason=firmware.denial)
    try:
        return say(Instance(context.host_root))
    except (MetadataError, TracarbonException) as error:
        return Probe(works=False, reason=str(error), remedy=f"set {option}")


async def asked(context: PluginContext | None, question: str, instance: Instance) -> str:
    """Return what `question`, a method of `Instance`, says, without holding up the event loop.

    Raises:
        MetadataError: it is not known; says why, and what would help.
    """
    using = context or PluginContext("aws")
    try:
        with anyio.fail_after(_LONGEST_SECONDS):
            answer: str = await using.run_blocking(getattr(instance, question))
            return answer
    except TimeoutError:
        raise MetadataError(f"the instance metadata service took longer than {_LONGEST_SECONDS:g} s") from None
    finally:
        if context is None:
            using.close()
