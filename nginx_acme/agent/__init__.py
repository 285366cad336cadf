"""The agent beside nginx: standard library alone, for it stays in memory for years.

process   the agent itself: it sleeps, and has turns done
alarms    what wakes it
linux     how Linux tells that
"""
