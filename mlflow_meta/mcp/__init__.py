"""mlflow-meta as tools of the Model Context Protocol, for assistants that read and plan training.

`server` makes the server, `tools` has what it can do, `results` how it answers. The package `mcp`
comes with the extra `[mcp]`; nothing else of ours imports it.
"""
