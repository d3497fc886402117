"""Benchmarks: ratios within one run, side by side with other clients. See the README beside this file."""
