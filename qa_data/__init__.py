"""Gym-QA from FineGym: lists and annotations in, questions and their blind audit out. No torch."""
