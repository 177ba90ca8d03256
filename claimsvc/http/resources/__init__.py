"""The resources of the API: each with its routes and schemas side by side."""
