"""Floor 1: what every service stands on. Imports no service and nothing of the front door."""
