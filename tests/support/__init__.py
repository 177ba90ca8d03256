"""What tests in several folders share. A folder of tests imports nothing from another one but this."""
