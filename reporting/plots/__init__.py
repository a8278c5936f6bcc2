"""Pictures of comparisons and of single runs; configs name those that a run or a search draws.

Views may import it. It imports the comparison and all below.
"""
