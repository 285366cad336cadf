"""From what is wanted to certificates on disk: all that is said to issuers, in runs.

reconcile      the story of a run: what is due, and in whose turn
renewal_info   when the CAs want certificates to be renewed
obtaining      one certificate, from its issuer to what is remembered of it
trying         one attempt, and the names that it may do without
issuance       one order: key, challenges, download
sessions       the conversations of a run, one with each issuer
registration   an account, as its issuer knows it
allowance      what an account may ask, across runs
ports          what a run needs of the world, and what comes of it
"""
