"""The carbon intensity of the electricity of each AWS region.

Where a year is given, the figure is the yearly average of the country, by Ember and Our World in Data (2026); the
others are the grid factors of Cloud Carbon Footprint, as it published them in 2021.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple


class Region(NamedTuple):
    """An AWS region.

    Attributes:
        place: country.
        co2g_per_kwh: grams of CO2e per kWh of electricity.
        source: whose figure it is.
        year: that it is of; empty where its source does not say.
        zone: of Electricity Maps; empty where it is not known.
    """

    place: str
    co2g_per_kwh: float
    source: str
    year: str
    zone: str

    @property
    def kind(self) -> str:
        """What the figure is."""
        return f"{'yearly' if self.year else 'grid'} average, {self.source}"

    @property
    def date(self) -> str:
        """What time it is of."""
        return self.year or "published 2021"


REGIONS = {
    "af-south-1": Region("South Africa", 928.0, "carbonfootprint.com", "", "ZA"),
    "ap-east-1": Region("Hong Kong", 810.0, "carbonfootprint.com", "", "HK"),
    "ap-east-2": Region("Taiwan", 633.21, "Ember", "2025", "TW"),
    "ap-northeast-1": Region("Japan", 506.0, "carbonfootprint.com", "", "JP-TK"),
    "ap-northeast-2": Region("South Korea", 500.0, "carbonfootprint.com", "", "KR"),
    "ap-northeast-3": Region("Japan", 506.0, "carbonfootprint.com", "", "JP-KN"),
    "ap-south-1": Region("India", 708.0, "carbonfootprint.com", "", "IN-WE"),
    "ap-south-2": Region("India", 670.13, "Ember", "2025", "IN-SO"),
    "ap-southeast-1": Region("Singapore", 408.5, "EMA Singapore", "", "SG"),
    "ap-southeast-2": Region("Australia", 790.0, "carbonfootprint.com", "", "AU-NSW"),
    "ap-southeast-3": Region("Indonesia", 680.25, "Ember", "2024", "ID"),
    "ap-southeast-4": Region("Australia", 525.18, "Ember", "2025", "AU-VIC"),
    "ap-southeast-5": Region("Malaysia", 601.97, "Ember", "2025", "MY-WM"),
    "ap-southeast-6": Region("New Zealand", 92.76, "Ember", "2025", "NZ"),
    "ap-southeast-7": Region("Thailand", 545.74, "Ember", "2025", "TH"),
    "ca-central-1": Region("Canada", 130.0, "carbonfootprint.com", "", "CA-QC"),
    "ca-west-1": Region("Canada", 190.72, "Ember", "2025", "CA-AB"),
    "cn-north-1": Region("China", 555.0, "carbonfootprint.com", "", "CN"),
    "cn-northwest-1": Region("China", 555.0, "carbonfootprint.com", "", "CN"),
    "eu-central-1": Region("Germany", 338.0, "EEA", "", "DE"),
    "eu-central-2": Region("Switzerland", 39.22, "Ember", "2025", "CH"),
    "eu-north-1": Region("Sweden", 8.0, "EEA", "", "SE-SE3"),
    "eu-south-1": Region("Italy", 233.0, "EEA", "", "IT-NO"),
    "eu-south-2": Region("Spain", 153.6, "Ember", "2025", "ES"),
    "eu-west-1": Region("Ireland", 316.0, "EEA", "", "IE"),
    "eu-west-2": Region("England", 228.0, "EEA", "", "GB"),
    "eu-west-3": Region("France", 52.0, "EEA", "", "FR"),
    "eusc-de-east-1": Region("Germany", 329.65, "Ember", "2025", "DE"),
    "il-central-1": Region("Israel", 492.69, "Ember", "2025", "IL"),
    "me-central-1": Region("United Arab Emirates", 467.51, "Ember", "2024", "AE"),
    "me-south-1": Region("Bahrain", 732.0, "carbonfootprint.com", "", "BH"),
    "mx-central-1": Region("Mexico", 474.02, "Ember", "2025", "MX"),
    "sa-east-1": Region("Brazil", 74.0, "carbonfootprint.com", "", "BR-CS"),
    "us-east-1": Region("United States", 415.755, "EPA", "", "US-MIDA-PJM"),
    "us-east-2": Region("United States", 440.187, "EPA", "", "US-MIDA-PJM"),
    "us-gov-east-1": Region("United States", 415.755, "EPA", "", "US-MIDA-PJM"),
    "us-gov-west-1": Region("United States", 350.861, "EPA", "", ""),
    "us-west-1": Region("United States", 350.861, "EPA", "", "US-CAL-CISO"),
    "us-west-2": Region("United States", 350.861, "EPA", "", "US-NW-PACW"),
}


def nearest_regions(name: str) -> list[str]:
    """Return the regions that somebody who wrote `name` may have meant, the likeliest first; at most three.

    They are those of a country that is named; else those that begin with the same word, such as `eu`; else those that
    are written alike.
    """
    wanted = name.strip().lower()
    words = set(wanted.split())
    by_place = [region for region, known in REGIONS.items() if words and words <= set(known.place.lower().split())]
    same_part = [region for region in REGIONS if region.partition("-")[0] == wanted.partition("-")[0]]
    by_part = difflib.get_close_matches(wanted, same_part, n=3, cutoff=0.0)
    return by_place[:3] or by_part or difflib.get_close_matches(wanted, REGIONS, n=3, cutoff=0.6)
