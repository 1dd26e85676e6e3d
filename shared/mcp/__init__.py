"""Cygnet as a server of the Model Context Protocol, and a small client of any such server."""
