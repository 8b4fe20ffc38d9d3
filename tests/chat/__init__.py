"""Tests of rejoinder.chat, one file per module."""
