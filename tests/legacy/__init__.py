"""Tests of rejoinder.legacy, one file per module."""
