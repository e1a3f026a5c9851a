"""Measurements of minicnn beside its peers; ``python -m benchmarks`` runs them. Not part of the installed package."""
