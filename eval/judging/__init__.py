"""Judged tasks: the requests to a judge, their cost, and the replies."""
