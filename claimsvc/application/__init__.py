"""The use cases: they authorize the caller, record the audit, and call the ports.

There is one module for each family. A use case takes the ports that it needs, a `Caller` and domain values, and returns
an outcome. The entry points, such as HTTP and the command line, parse their input, call a use case, and render the
outcome.
"""
