from shared.cli import entry

entry()
