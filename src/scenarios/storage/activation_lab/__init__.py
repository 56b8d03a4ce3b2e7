"""Runs of Activation Lab, read and written in its two layouts of npz files."""
