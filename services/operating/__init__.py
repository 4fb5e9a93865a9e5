"""What an operator asks a running installation, and does to it: dead letters, partitions, keys."""
