"""Tests of rejoinder.training, one file per module."""
