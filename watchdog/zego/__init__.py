"""The wire to ZEGO: signed requests, connections, replies, and the pace of requests.

What a reply means is decided in ``core.outcomes``; what is asked, and when, is decided in ``services``.
"""
