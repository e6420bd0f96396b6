"""The conformance suite: run by this project over its built-ins, and by anyone over their plugins."""
