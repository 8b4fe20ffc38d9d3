"""Tests of rejoinder.models, one file per module."""
