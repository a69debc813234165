"""Corpora that are built on one's own machine from freely licensed packages; nothing is downloaded unasked."""
