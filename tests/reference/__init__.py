"""Tests of the exact references."""
