"""Tests of the Clever client, against a scripted HTTP server on loopback."""
