"""Predictions -> accuracies, their intervals, tables and plots."""
