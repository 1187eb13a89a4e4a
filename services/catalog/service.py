"""The catalog service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

from services.catalog.application import CatalogApplication
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.tracing import Tracing


class CatalogService(LogService):
    """What can be bought, and when which price holds."""

    name = "catalog"
    app = Hosted(CatalogApplication)
    tracing = Tracing()

    @rpc
    def publish(self, **command: Any) -> dict[str, Any]:
        return self.app.publish(command)

    @rpc
    def check(self, **command: Any) -> dict[str, Any]:
        return self.app.check(command)

    # -- one thing --------------------------------------------------------------------------------------
    @rpc
    def model(self, **query: Any) -> dict[str, Any]:
        return self.app.model(query)

    @rpc
    def rate_card(self, **query: Any) -> dict[str, Any]:
        return self.app.rate_card(query)

    @rpc
    def plan(self, **query: Any) -> dict[str, Any]:
        return self.app.plan(query)

    @rpc
    def history(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.history(query)

    @rpc
    def compare(self, **query: Any) -> dict[str, Any]:
        return self.app.compare(query)

    @rpc
    def imports(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.imports(query)

    # -- lists --------------------------------------------------------------------------------------------
    @rpc
    def models(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("models", query)

    @rpc
    def rate_cards(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("rate_cards", query)

    @rpc
    def plans(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("plans", query)

    @rpc
    def operators(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("operators", query)

    @rpc
    def regions(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("regions", query)

    @rpc
    def data_centres(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("data_centres", query)

    @rpc
    def deployments(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("deployments", query)

    @rpc
    def tariffs(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("tariffs", query)

    @rpc
    def policies(self, **query: Any) -> list[dict[str, Any]]:
        return self.app.listed("policies", query)
