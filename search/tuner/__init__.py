"""One search from request to outcome: ask, hand out, report, prune, tell."""
