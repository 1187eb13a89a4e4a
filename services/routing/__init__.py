"""Where a call runs: choice of deployment, health, capacity."""
