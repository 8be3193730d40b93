"""Post-training on TRL and Ray Train."""
