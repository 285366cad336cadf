"""nginx-acme: the `nginx` command with certificates.

It reads the user's configuration, decides which certificates are missing, gets them, writes a
generated configuration beside its state and becomes nginx.
"""

__version__ = "0.1.0"
