"""The command line. Each command's module is imported when that command is used."""
