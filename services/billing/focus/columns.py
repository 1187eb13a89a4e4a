"""The columns of FOCUS 1.2 and their allowed values, as the specification lists them.

Facts only: it must not know what we write into them. Source: FOCUS 1.2, column library.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Level(Enum):
    """Whether a dataset must have the column."""

    MANDATORY = "Mandatory"
    CONDITIONAL = "Conditional"
    RECOMMENDED = "Recommended"


class Format(Enum):
    """A column's value format; its data type follows from it."""

    TEXT = "String"
    UNIT = "Unit Format"
    CURRENCY = "Currency Format"
    ALLOWED = "Allowed Values"
    INSTANT = "Date/Time Format"
    NUMBER = "Numeric Format"
    KEY_VALUE = "Key-Value Format"


class Column(NamedTuple):
    """`nullable`: whether it may be empty at all; when it must be or must not be is said by the conditions."""

    name: str
    level: Level
    nullable: bool
    format: Format
    introduced: str


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("AvailabilityZone", Level.RECOMMENDED, True, Format.TEXT, "0.5"),
        Column("BilledCost", Level.MANDATORY, False, Format.NUMBER, "0.5"),
        Column("BillingAccountId", Level.MANDATORY, False, Format.TEXT, "0.5"),
        Column("BillingAccountName", Level.MANDATORY, True, Format.TEXT, "0.5"),
        Column("BillingAccountType", Level.CONDITIONAL, False, Format.TEXT, "1.2"),
        Column("BillingCurrency", Level.MANDATORY, False, Format.CURRENCY, "0.5"),
        Column("BillingPeriodEnd", Level.MANDATORY, False, Format.INSTANT, "0.5"),
        Column("BillingPeriodStart", Level.MANDATORY, False, Format.INSTANT, "0.5"),
        Column("CapacityReservationId", Level.CONDITIONAL, True, Format.TEXT, "1.1"),
        Column("CapacityReservationStatus", Level.CONDITIONAL, True, Format.ALLOWED, "1.1"),
        Column("ChargeCategory", Level.MANDATORY, False, Format.ALLOWED, "0.5"),
        Column("ChargeClass", Level.MANDATORY, True, Format.ALLOWED, "1.0"),
        Column("ChargeDescription", Level.MANDATORY, True, Format.TEXT, "1.0-preview"),
        Column("ChargeFrequency", Level.RECOMMENDED, False, Format.ALLOWED, "1.0-preview"),
        Column("ChargePeriodEnd", Level.MANDATORY, False, Format.INSTANT, "0.5"),
        Column("ChargePeriodStart", Level.MANDATORY, False, Format.INSTANT, "0.5"),
        Column("CommitmentDiscountCategory", Level.CONDITIONAL, True, Format.ALLOWED, "1.0-preview"),
        Column("CommitmentDiscountId", Level.CONDITIONAL, True, Format.TEXT, "1.0-preview"),
        Column("CommitmentDiscountName", Level.CONDITIONAL, True, Format.TEXT, "1.0-preview"),
        Column("CommitmentDiscountQuantity", Level.CONDITIONAL, True, Format.NUMBER, "1.1"),
        Column("CommitmentDiscountStatus", Level.CONDITIONAL, True, Format.ALLOWED, "1.0"),
        Column("CommitmentDiscountType", Level.CONDITIONAL, True, Format.TEXT, "1.0-preview"),
        Column("CommitmentDiscountUnit", Level.CONDITIONAL, True, Format.UNIT, "1.1"),
        Column("ConsumedQuantity", Level.CONDITIONAL, True, Format.NUMBER, "1.0"),
        Column("ConsumedUnit", Level.CONDITIONAL, True, Format.UNIT, "1.0"),
        Column("ContractedCost", Level.MANDATORY, False, Format.NUMBER, "1.0"),
        Column("ContractedUnitPrice", Level.CONDITIONAL, True, Format.NUMBER, "1.0"),
        Column("EffectiveCost", Level.MANDATORY, False, Format.NUMBER, "0.5"),
        Column("InvoiceId", Level.RECOMMENDED, True, Format.TEXT, "1.2"),
        Column("InvoiceIssuerName", Level.MANDATORY, False, Format.TEXT, "0.5"),
        Column("ListCost", Level.MANDATORY, False, Format.NUMBER, "1.0-preview"),
        Column("ListUnitPrice", Level.CONDITIONAL, True, Format.NUMBER, "1.0-preview"),
        Column("PricingCategory", Level.CONDITIONAL, True, Format.ALLOWED, "1.0-preview"),
        Column("PricingCurrency", Level.CONDITIONAL, True, Format.CURRENCY, "1.2"),
        Column("PricingCurrencyContractedUnitPrice", Level.CONDITIONAL, True, Format.NUMBER, "1.2"),
        Column("PricingCurrencyEffectiveCost", Level.CONDITIONAL, True, Format.NUMBER, "1.2"),
        Column("PricingCurrencyListUnitPrice", Level.CONDITIONAL, True, Format.NUMBER, "1.2"),
        Column("PricingQuantity", Level.MANDATORY, True, Format.NUMBER, "1.0-preview"),
        Column("PricingUnit", Level.MANDATORY, True, Format.UNIT, "1.0-preview"),
        Column("ProviderName", Level.MANDATORY, False, Format.TEXT, "0.5"),
        Column("PublisherName", Level.MANDATORY, False, Format.TEXT, "0.5"),
        Column("RegionId", Level.CONDITIONAL, True, Format.TEXT, "1.0"),
        Column("RegionName", Level.CONDITIONAL, True, Format.TEXT, "1.0"),
        Column("ResourceId", Level.CONDITIONAL, True, Format.TEXT, "0.5"),
        Column("ResourceName", Level.CONDITIONAL, True, Format.TEXT, "0.5"),
        Column("ResourceType", Level.CONDITIONAL, True, Format.TEXT, "1.0-preview"),
        Column("ServiceCategory", Level.MANDATORY, False, Format.ALLOWED, "0.5"),
        Column("ServiceName", Level.MANDATORY, False, Format.TEXT, "0.5"),
        Column("ServiceSubcategory", Level.RECOMMENDED, False, Format.ALLOWED, "1.1"),
        Column("SkuId", Level.CONDITIONAL, True, Format.TEXT, "1.0-preview"),
        Column("SkuMeter", Level.CONDITIONAL, True, Format.TEXT, "1.1"),
        Column("SkuPriceDetails", Level.CONDITIONAL, True, Format.KEY_VALUE, "1.1"),
        Column("SkuPriceId", Level.CONDITIONAL, True, Format.TEXT, "1.0-preview"),
        Column("SubAccountId", Level.CONDITIONAL, True, Format.TEXT, "0.5"),
        Column("SubAccountName", Level.CONDITIONAL, True, Format.TEXT, "0.5"),
        Column("SubAccountType", Level.CONDITIONAL, True, Format.TEXT, "1.2"),
        Column("Tags", Level.CONDITIONAL, True, Format.KEY_VALUE, "1.0-preview"),
    )
}

# Each subcategory of a service has this one category.
SERVICES: dict[str, tuple[str, ...]] = {
    "AI and Machine Learning": (
        "AI Platforms",
        "Bots",
        "Generative AI",
        "Machine Learning",
        "Natural Language Processing",
    ),
    "Analytics": (
        "Analytics Platforms",
        "Business Intelligence",
        "Data Processing",
        "Search",
        "Streaming Analytics",
    ),
    "Business Applications": ("Productivity and Collaboration",),
    "Compute": ("Containers", "End User Computing", "Quantum Compute", "Serverless Compute", "Virtual Machines"),
    "Databases": (
        "Caching",
        "Data Warehouses",
        "Ledger Databases",
        "NoSQL Databases",
        "Relational Databases",
        "Time Series Databases",
    ),
    "Developer Tools": (
        "Developer Platforms",
        "Continuous Integration and Deployment",
        "Development Environments",
        "Source Code Management",
        "Quality Assurance",
    ),
    "Identity": ("Identity and Access Management",),
    "Integration": ("API Management", "Messaging", "Workflow Orchestration"),
    "Internet of Things": ("IoT Analytics", "IoT Platforms"),
    "Management and Governance": (
        "Architecture",
        "Compliance",
        "Cost Management",
        "Data Governance",
        "Disaster Recovery",
        "Endpoint Management",
        "Observability",
        "Support",
    ),
    "Media": ("Content Creation", "Gaming", "Media Streaming", "Mixed Reality"),
    "Migration": ("Data Migration", "Resource Migration"),
    "Mobile": (),
    "Multicloud": ("Multicloud Integration",),
    "Networking": (
        "Application Networking",
        "Content Delivery",
        "Network Connectivity",
        "Network Infrastructure",
        "Network Routing",
        "Network Security",
    ),
    "Security": ("Secret Management", "Security Posture Management", "Threat Detection and Response"),
    "Storage": ("Backup Storage", "Block Storage", "File Storage", "Object Storage", "Storage Platforms"),
    "Web": ("Application Platforms",),
    "Other": (),
}
CATEGORY_OF: dict[str, str] = {
    part: category for category, parts in SERVICES.items() for part in (*parts, f"Other ({category})")
}

ALLOWED: dict[str, frozenset[str]] = {
    "CapacityReservationStatus": frozenset({"Used", "Unused"}),
    "ChargeCategory": frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"}),
    "ChargeClass": frozenset({"Correction"}),
    "ChargeFrequency": frozenset({"One-Time", "Recurring", "Usage-Based"}),
    "CommitmentDiscountCategory": frozenset({"Spend", "Usage"}),
    "CommitmentDiscountStatus": frozenset({"Used", "Unused"}),
    "PricingCategory": frozenset({"Standard", "Dynamic", "Committed", "Other"}),
    "ServiceCategory": frozenset(SERVICES),
    "ServiceSubcategory": frozenset(CATEGORY_OF),
}

_ISO_4217 = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT
MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES
VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_ISO_4217.split())  # national ones
