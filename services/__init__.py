"""Floor 2: one room a service. A service never imports another service."""
