"""What a device believes and why: metadata, orders, grants, mandates, keys. The worker's side."""
