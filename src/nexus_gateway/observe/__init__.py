"""Readers of the finished record; they change nothing and decide nothing."""
