"""Conversations about a video."""
