"""Programs made of the kit: a transfer service and its client."""
