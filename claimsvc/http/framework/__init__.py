"""What every route uses: routing, authentication, bodies, validation, problems, the OpenAPI document."""
