"""A stand-in Omneo: a real HTTP server with real state, to try and test against."""
