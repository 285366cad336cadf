"""RFC 8555 and its extensions; no word of nginx."""
