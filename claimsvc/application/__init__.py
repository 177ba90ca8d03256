"""The use cases: who may do what, what is audited, and which checks come first.

One module for each family. A use case takes the ports that it needs, a `Caller` and domain values, and returns an
outcome. HTTP and the command line parse, call a use case, and render what it returns.
"""
