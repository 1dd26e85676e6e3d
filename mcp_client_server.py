#!/usr/bin/env python
"""The MCP door: a server of pictures for any MCP client, and a small client to try it with.

python mcp_client_server.py                                      serves on stdin and stdout
python mcp_client_server.py --http                               serves over HTTP
python mcp_client_server.py call generate_image --prompt "a fox" calls it, and saves the picture
python mcp_client_server.py tools                                lists its tools

It is `cygnet mcp`, and needs no installed command.
"""

from __future__ import annotations

import sys

from shared.cli import entry

if __name__ == "__main__":
    entry(["mcp", *sys.argv[1:]])
