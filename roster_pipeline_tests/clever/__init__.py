"""Tests of the Clever edge, against a scripted HTTP server on loopback."""
