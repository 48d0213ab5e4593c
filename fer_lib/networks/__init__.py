"""Network architectures; they know nothing of files, devices or training."""
