"""Tests of rejoinder.data, one file per module."""
