"""Candidate samplers: class ids drawn for a step, and how often each is expected."""
