"""Stateful joins of two streams: by interval, by window, as of a time, and regular ones over changelogs."""
