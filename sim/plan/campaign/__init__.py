"""A standing campaign: runs without end over drawn configurations, every one judged (`pilotzone campaign`).

Read in this order: ``draws`` (a configuration as a function of a seed and a number), ``runs`` (one run, what became of
it, and a finding as small as it gets), ``campaign`` (many of them on all cores, resumed where they stopped).
"""
