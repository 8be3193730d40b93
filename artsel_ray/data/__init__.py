"""From logs to examples: simulated worlds, preparation and splits."""
