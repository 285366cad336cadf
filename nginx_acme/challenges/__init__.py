"""How the control of an identifier is shown to the CA (RFC 8555 §8): one module for each way."""
