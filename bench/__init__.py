"""What Rapport does in a second, beside the limit of each part: `make bench`. See docs/performance.md."""
