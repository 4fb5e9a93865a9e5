"""Ingest: the Segment-compatible HTTP door. It answers 200 when the log has what was posted."""
