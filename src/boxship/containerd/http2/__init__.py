"""A gRPC server small enough to be fast: HTTP/2 for the services' socket (decision 0012 tells why it is ours)."""
