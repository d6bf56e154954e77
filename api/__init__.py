"""Protocol definitions of the services, and what is generated from them."""
