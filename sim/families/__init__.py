"""What several protocols of one lineage share, a package each; here, what more than one lineage does.

`pbft`: groups, view changes, state transfer. `heights`: rounds at one height after the other, validators, powers,
gossip. `chained`: trees of certified blocks, and views whose leaders take turns. `raft`: a replicated log and its
server. `forks`: branches of chains that are chosen, not voted.
"""
