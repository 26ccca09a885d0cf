"""Predictions -> numbers, their intervals, their pictures."""
