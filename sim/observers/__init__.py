"""Nodes that follow without a vote: observers that hold blocks or headers, and nodes that catch up after being away.

Nothing here knows any protocol: voters tell what they have decided (`source`), followers fetch it (`follower`), in
messages of their own (`messages`) that take the same network cards, links and processors as all others.
"""
