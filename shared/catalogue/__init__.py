"""The copy of the catalogue that every service keeps: a pure view, and its durable rows.

A service that knows the catalogue by its own copy goes on working while the catalog service is down.
"""

from shared.catalogue.copy import CatalogueCopy
from shared.catalogue.view import CatalogueView, Version, applicable_rates

__all__ = ["CatalogueCopy", "CatalogueView", "Version", "applicable_rates"]
