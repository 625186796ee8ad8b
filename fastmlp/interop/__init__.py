"""fastmlp in other programs: single rows in a service."""
