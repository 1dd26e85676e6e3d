"""What Cygnet's doors (Modal, Space, MCP, command line) have in common."""

__version__ = "0.1.0"
