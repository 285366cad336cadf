"""What is known of nginx's configuration language; no word of ACME."""
