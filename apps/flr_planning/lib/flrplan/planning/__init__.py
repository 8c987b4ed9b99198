"""Volumes and criteria that decide an operation. Never imports torch."""
