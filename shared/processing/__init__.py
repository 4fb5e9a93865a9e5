"""Reading, ownership, fencing, de-duplication, timers, dead letters and publishing: once, for every service."""
