"""Tests of rejoinder.exports, one file per module."""
