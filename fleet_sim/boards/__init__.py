"""What virtual devices are made of: how fast they compute, what carries their messages, what feeds them.

A scenario that names boards is played in time: jobs and messages take as long as the board and its link need, links
fail and come back, batteries run down. All figures are estimates from public sources, none was measured by us.
"""
